import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The deliberate differences between Granary and HDFS 2.7.3, by name: {@code differences.md} gives each a line
 * {@code - `name`: reason}. A name that is used without a reason is an error, and so is a reason that nothing needs.
 */
final class Differences {
    private static final Pattern LINE = Pattern.compile("^- `([a-z0-9-]+)`: \\S.*");

    private final Set<String> known = new TreeSet<>();
    private final Set<String> used = new LinkedHashSet<>();

    /** Reads the names under the heading {@code section}. */
    Differences(Path file, String section) throws IOException {
        String heading = "";
        for (String line : Files.readAllLines(file)) {
            if (line.startsWith("## ")) {
                heading = line.substring(3);
            }
            Matcher name = LINE.matcher(line);
            if (heading.equals(section) && name.matches()) {
                known.add(name.group(1));
            }
        }
    }

    /** Notes that {@code name} explained a difference. */
    void use(String name) {
        if (!known.contains(name)) {
            throw new IllegalStateException("differences.md gives no reason for " + name);
        }
        used.add(name);
    }

    /** What has a reason but explained nothing. */
    Set<String> unused() {
        Set<String> rest = new TreeSet<>(known);
        rest.removeAll(used);
        return rest;
    }
}

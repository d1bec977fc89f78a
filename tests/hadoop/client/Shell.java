import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FsShell;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hdfs.protocol.HdfsConstants;
import org.apache.hadoop.util.Tool;
import org.apache.hadoop.util.ToolRunner;

/**
 * Runs scripts of {@code hdfs dfs} commands against two clusters, one command at a time, in one JVM, and compares exit
 * code, standard output and standard error.
 *
 * <p>{@code Shell GRANARY REFERENCE FOLDER DIFFERENCES SECTION SCRIPT...}: two URIs, a folder for local files, the list
 * of deliberate differences and the heading there. With {@code -Dverbose} every command is shown with its answer. A line of a script is one of
 *
 * <pre>
 *   # a remark
 *   as USER                     who asks from here on
 *   file NAME TEXT              a local file; \n in TEXT is a line's end
 *   bytes NAME COUNT            a local file of so many bytes, always the same ones
 *   input TEXT                  standard input of the next command
 *   words                       standard error of the next command is worded differently; all else is the same
 *   differs NAME                the next command's answers must differ; differences.md says why
 *   sorted                      the lines of the next command's answer come in any order
 *   fs ARGS                     hdfs dfs ARGS
 *   admin ARGS                  hdfs dfsadmin ARGS, where the class path has it (that of 2.7.3 does)
 *   set WHAT PATH ARGS          allowSnapshot, disallowSnapshot, quota NAMES BYTES (-1 clears): by the Java interface
 *   cat NAME                    shows a local file
 *   list NAME                   shows the names in a local folder
 * </pre>
 *
 * Words are split at spaces and may be quoted; {@code $L} is the local folder, {@code $U} the cluster's URI.
 */
public final class Shell {
    private static final long COMMAND_SECONDS_MAX = 60;

    private final List<Side> sides;
    private final Differences differences;
    private String user = "root";
    private String input = "";
    private String differs = null;
    private boolean words = false;
    private boolean sorted = false;
    private int commands = 0;
    private int failures = 0;

    private Shell(List<Side> sides, Differences differences) {
        this.sides = sides;
        this.differences = differences;
    }

    public static void main(String[] args) throws Exception {
        File folder = new File(args[2]);
        Side granary = new Side("granary", args[0], new File(folder, "g"));
        Side reference = new Side("reference", args[1], new File(folder, "r"));
        Differences differences = new Differences(java.nio.file.Path.of(args[3]), args[4]);
        Shell shell = new Shell(List.of(granary, reference), differences);
        for (String script : Arrays.asList(args).subList(5, args.length)) {
            shell.run(java.nio.file.Path.of(script));
        }
        for (String name : differences.unused()) {
            shell.fail("differences.md lists " + name + ", which no script needs");
        }
        System.out.printf("%d commands, %d differences that were not expected%n", shell.commands, shell.failures);
        System.out.flush();
        Runtime.getRuntime().halt(shell.failures == 0 ? 0 : 1);
    }

    private void run(java.nio.file.Path script) throws Exception {
        user = "root";
        int number = 0;
        for (String line : Files.readAllLines(script)) {
            number++;
            if (!line.isBlank() && !line.startsWith("#")) {
                step(script.getFileName() + ":" + number, line);
            }
        }
    }

    private void step(String where, String line) throws Exception {
        String[] parts = line.split(" ", 2);
        String rest = parts.length > 1 ? parts[1] : "";
        switch (parts[0]) {
            case "as" -> user = rest;
            case "input" -> input = rest.replace("\\n", "\n");
            case "differs" -> differs = rest;
            case "words" -> words = true;
            case "sorted" -> sorted = true;
            case "file" -> {
                String[] file = rest.split(" ", 2);
                byte[] text = (file.length > 1 ? file[1] : "").replace("\\n", "\n").getBytes(StandardCharsets.UTF_8);
                write(file[0], text);
            }
            case "bytes" -> {
                String[] file = rest.split(" ");
                write(file[0], pattern(Integer.parseInt(file[1])));
            }
            case "fs", "admin", "set", "cat", "list" -> compare(where, parts[0], rest);
            default -> throw new IllegalArgumentException(where + ": unknown verb " + parts[0]);
        }
    }

    private void write(String name, byte[] bytes) throws IOException {
        for (Side side : sides) {
            java.nio.file.Path path = new File(side.local, name).toPath();
            Files.createDirectories(path.getParent());
            Files.write(path, bytes);
        }
    }

    private static byte[] pattern(int count) {
        byte[] bytes = new byte[count];
        for (int i = 0; i < count; i++) {
            bytes[i] = (byte) (i * 31 + (i >> 9) * 7);
        }
        return bytes;
    }

    private void compare(String where, String verb, String rest) throws Exception {
        commands++;
        List<String> answers = new ArrayList<>();
        for (Side side : sides) {
            String answer = new Mask(side).apply(answer(side, verb, rest));
            answers.add(sorted ? answer.lines().sorted().collect(Collectors.joining("\n")) : answer);
        }
        boolean same = answers.get(0).equals(answers.get(1));
        if (words && !same) {
            same = answers.stream().map(Shell::withoutWords).distinct().count() == 1;
        } else if (words) {
            fail(where + ": as " + user + ": " + verb + " " + rest + "\n  is not worded differently any more");
        }
        String what = where + ": as " + user + ": " + verb + " " + rest;
        if (System.getProperty("verbose") != null) {
            System.out.println(what + "\n" + indent(answers.get(0)));
        }
        if (differs != null) {
            differences.use(differs);
        }
        if (same && differs != null) {
            fail(what + "\n  should differ (" + differs + "), but both say\n" + indent(answers.get(0)));
        } else if (!same && differs == null) {
            fail(what + "\n  granary\n" + indent(answers.get(0)) + "\n  reference\n" + indent(answers.get(1)));
        }
        differs = null;
        words = false;
        sorted = false;
        input = "";
    }

    /** All but what stands behind the command's name on standard error; of an exception its class. */
    private static String withoutWords(String answer) {
        return answer.replaceAll("(?s)(--- error\n[^:]*: ).*", "$1").replaceAll("(?s)(thrown: [A-Za-z.()$]*).*", "$1");
    }

    private void fail(String what) {
        failures++;
        System.out.println("DIFFERENCE " + what);
    }

    private static String indent(String text) {
        return text.lines().map(line -> "      " + line).collect(Collectors.joining("\n"));
    }

    private String answer(Side side, String verb, String rest) throws Exception {
        List<String> words = words(rest.replace("$L", side.local.getPath()).replace("$U", side.uri));
        switch (verb) {
            case "cat":
                java.nio.file.Path file = new File(side.local, words.get(0)).toPath();
                return Files.exists(file) ? shortened(Files.readAllBytes(file)) : "(missing)";
            case "list":
                try (Stream<java.nio.file.Path> names = Files.walk(new File(side.local, words.get(0)).toPath())) {
                    return names.map(Object::toString).sorted().collect(Collectors.joining("\n"));
                }
            default:
                return tool(side, verb, words.toArray(new String[0]));
        }
    }

    /** Runs a command with a deadline: a hang is an answer too, but the last. */
    private String tool(Side side, String verb, String[] args) throws Exception {
        FutureTask<String> task = new FutureTask<>(() -> side.as(user, () -> capture(side, verb, args)));
        Thread thread = new Thread(task, "command");
        PrintStream out = System.out;
        PrintStream err = System.err;
        InputStream in = System.in;
        thread.start();
        try {
            return task.get(COMMAND_SECONDS_MAX, TimeUnit.SECONDS);
        } catch (TimeoutException late) {
            System.setOut(out);
            fail(side.name + " hangs: " + String.join(" ", args) + "\n"
                    + Arrays.stream(thread.getStackTrace()).map(Object::toString).collect(Collectors.joining("\n")));
            System.out.flush();
            Runtime.getRuntime().halt(1);
            throw late;
        } catch (ExecutionException failed) {
            return "thrown: " + failed.getCause();
        } finally {
            System.setOut(out);
            System.setErr(err);
            System.setIn(in);
        }
    }

    private String capture(Side side, String verb, String[] args) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        System.setOut(new PrintStream(out, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(err, true, StandardCharsets.UTF_8));
        System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
        Configuration conf = side.settings();
        int code;
        try {
            code = switch (verb) {
                case "fs" -> ToolRunner.run(new FsShell(conf), args);
                case "set" -> set((DistributedFileSystem) FileSystem.get(conf), args);
                // hdfs dfsadmin
                default -> {
                    Class<?> tool = Class.forName("org.apache.hadoop.hdfs.tools.DFSAdmin");
                    Object made = tool.getConstructor(Configuration.class).newInstance(conf);
                    yield ToolRunner.run((Tool) made, args);
                }
            };
        } finally {
            FileSystem.closeAll();
        }
        String said = shortened(out.toByteArray());
        String complained = err.toString(StandardCharsets.UTF_8);
        return "exit " + code + "\n" + said + (complained.isEmpty() ? "" : "--- error\n" + complained);
    }

    /** The text, or the length and a hash of what is long or no text. */
    private static String shortened(byte[] bytes) {
        String text = new String(bytes, StandardCharsets.UTF_8);
        boolean plain = text.chars().allMatch(c -> c >= ' ' && c != 0xFFFD || c == '\n' || c == '\t');
        return plain && bytes.length < 20_000 ? text : bytes.length + " bytes, hash " + Arrays.hashCode(bytes) + "\n";
    }

    private static int set(DistributedFileSystem fs, String[] args) throws IOException {
        Path path = new Path(args[1]);
        switch (args[0]) {
            case "allowSnapshot" -> fs.allowSnapshot(path);
            case "disallowSnapshot" -> fs.disallowSnapshot(path);
            case "quota" -> fs.setQuota(path, limit(args[2]), limit(args[3]));
            default -> throw new IllegalArgumentException("set " + args[0]);
        }
        return 0;
    }

    /** A quota; -1 takes it away and = keeps it. */
    private static long limit(String text) {
        return text.equals("=") ? HdfsConstants.QUOTA_DONT_SET : Long.parseLong(text);
    }

    /** Splits at spaces; quotes, single or double, keep a word together. */
    private static List<String> words(String line) {
        List<String> words = new ArrayList<>();
        StringBuilder word = null;
        char quote = 0;
        for (char c : line.toCharArray()) {
            if (quote != 0 ? c == quote : c == '\'' || c == '"') {
                quote = quote != 0 ? 0 : c;
                word = word == null ? new StringBuilder() : word;
            } else if (c == ' ' && quote == 0) {
                if (word != null) {
                    words.add(word.toString());
                }
                word = null;
            } else {
                word = word == null ? new StringBuilder() : word;
                word.append(c);
            }
        }
        if (word != null) {
            words.add(word.toString());
        }
        return words;
    }
}

import java.util.regex.Pattern;

/** Replaces what differs from run to run and from cluster to cluster: times, ids, addresses, folders. */
final class Mask {
    private static final String[][] RULES = {
        // Where in a server's own code an error came from.
        {"(?m)^\\tat .*\n", ""},
        // How often a client asked until it was so.
        {"Waiting for ([^ ]+) \\.+", "Waiting for $1 ..."},
        {"(hdfs://)?127\\.0\\.0\\.1:\\d+", "ADDRESS"},
        {"(localhost|[A-Za-z0-9.-]+)/ADDRESS", "ADDRESS"},
        {"BP-[0-9]+-[0-9.]+-[0-9]+", "POOL"},
        {"blk_-?[0-9]+(_[0-9]+)?", "BLOCK"},
        {"DatanodeInfoWithStorage\\[[^\\]]*\\]", "NODE"},
        {"DFSClient_NONMAPREDUCE_-?[0-9]+_[0-9]+", "CLIENT"},
        {"DFSClient_attempt_[A-Za-z0-9_-]+", "CLIENT"},
        {"INodeFile@[0-9a-f]+", "INodeFile@N"},
        {"\\(inode [0-9]+\\)", "(inode N)"},
        {"s[0-9]{8}-[0-9]{6}\\.[0-9]{3}", "SNAPSHOT"},
        {"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}(:[0-9]{2})?", "TIME"},
        {"\\b1[5-9][0-9]{11}\\b", "MILLIS"},
        {"/\\.Trash/[0-9]{12}", "/.Trash/CHECKPOINT"},
    };

    private final Pattern[] patterns = new Pattern[RULES.length];
    private final String folder;

    /** Hides the side's local folder too. */
    Mask(Side side) {
        folder = side.local.getPath();
        for (int i = 0; i < RULES.length; i++) {
            patterns[i] = Pattern.compile(RULES[i][0]);
        }
    }

    /** {@code text} with everything unstable replaced. */
    String apply(String text) {
        String masked = text.replace(folder, "LOCAL");
        for (int i = 0; i < RULES.length; i++) {
            masked = patterns[i].matcher(masked).replaceAll(RULES[i][1]);
        }
        return masked;
    }
}

import java.util.Set;

/** Which differences between two answers are deliberate; {@code differences.md} gives the reasons. */
final class Allowed {
    private final Differences differences;

    Allowed(Differences differences) {
        this.differences = differences;
    }

    /** Whether a deliberate difference explains these answers. {@code step} is null for what a sequence leaves. */
    boolean covers(Step step, String ours, String theirs) {
        String name = name(step, ours, theirs);
        if (name == null) {
            return false;
        }
        differences.use(name);
        return true;
    }

    Set<String> unused() {
        return differences.unused();
    }

    private static String name(Step step, String ours, String theirs) {
        boolean isUnderFile = theirs.matches("! AccessControlException: .*access=EXECUTE, inode=.*:-[rwxtT-]{9}\\+?")
                || theirs.contains("Parent path is not a directory") || theirs.contains("Current inode is not a directory");
        if (isUnderFile || ours.contains(": a component before ")) {
            return "under-a-file";
        }
        boolean mayNotPass = ours.matches("! AccessControlException: .*access=EXECUTE.*");
        if (mayNotPass && theirs.matches("! (FileNotFound|FileAlreadyExists|SnapshotAccessControl)Exception: .*")) {
            return "traverse-first";
        }
        if (ours.startsWith("! AccessControlException") && theirs.startsWith("! PathIsNotEmptyDirectoryException")) {
            return "empty-last";
        }
        if (ours.startsWith("! HadoopIllegalArgumentException: Cannot find a block policy")
                && theirs.startsWith("! AccessControlException")) {
            return "policy-first";
        }
        return null;
    }
}

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
        return null;
    }
}

import java.util.List;

/** One call of a sequence: who makes it, which it is, and with what; paths are relative to the sequence's folder. */
record Step(String user, String call, List<String> args) {
    static Step of(String user, String call, Object... args) {
        return new Step(user, call, java.util.Arrays.stream(args).map(String::valueOf).toList());
    }

    @Override
    public String toString() {
        return user + ": " + call + " " + String.join(" ", args);
    }
}

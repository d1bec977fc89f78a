import java.io.File;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.permission.FsPermission;

/**
 * Makes the same random calls on two clusters and compares every answer, and the trees that are left.
 *
 * <p>{@code Differential GRANARY REFERENCE FOLDER DIFFERENCES SEED SEQUENCES STEPS}: two URIs, a folder, the list of
 * deliberate differences, the first seed, how many sequences of how many calls. A sequence is a seed; one that shows a
 * difference is made shorter, call by call, as long as the same call's answers differ, and printed. With
 * {@code -Dverbose} every call is printed. {@code -Dfailures=N} stops after so many sequences that differ (10).
 * {@code -Dwithout=PATTERN} leaves out the calls that match. {@code -Dsurvey} goes on after a difference, and prints
 * each kind of difference once, with how often it was met.
 */
public final class Differential {
    private static final long STEP_SECONDS_MAX = 90;

    private final Side granary;
    private final Side reference;
    private final Allowed allowed;
    private final ExecutorService worker = Executors.newCachedThreadPool(work -> {
        Thread thread = new Thread(work, "step");
        thread.setDaemon(true);
        return thread;
    });
    private final Map<String, Integer> survey = new TreeMap<>();
    private int folders = 0;
    private long seed = 0;

    /** Where two answers differ: the call's number, the call and both answers. */
    private record Difference(int number, String what, String granary, String reference) {
        boolean isLike(Difference other) {
            return other != null && what.equals(other.what) && granary.equals(other.granary) && reference.equals(other.reference);
        }
    }

    private Differential(Side granary, Side reference, Allowed allowed) {
        this.granary = granary;
        this.reference = reference;
        this.allowed = allowed;
    }

    public static void main(String[] args) throws Exception {
        File folder = new File(args[2]);
        Allowed allowed = new Allowed(new Differences(java.nio.file.Path.of(args[3]), "Differential"));
        // Without a umask it does not matter that HDFS 2.7.3 applies it under a default ACL and 3.x does not.
        Differential test = new Differential(new Side("granary", args[0], new File(folder, "g"), "000"),
                new Side("reference", args[1], new File(folder, "r"), "000"), allowed);
        long seed = Long.parseLong(args[4]);
        int sequences = Integer.parseInt(args[5]);
        int steps = Integer.parseInt(args[6]);
        int failuresMax = Integer.getInteger("failures", 10);
        int failures = 0;
        int moments = 0;
        long made = 0;
        Map<String, Integer> calls = new TreeMap<>();
        int done = 0;
        for (; done < sequences && failures < failuresMax; done++) {
            List<Step> script = new ArrayList<>(Script.draw(seed + done, steps));
            script.removeIf(step -> step.toString().matches(System.getProperty("without", "")));
            script.forEach(step -> calls.merge(step.call(), 1, Integer::sum));
            made += script.size();
            test.seed = seed + done;
            Difference difference = test.play(script);
            if (difference == null) {
                continue;
            }
            // What a second time does not show was a matter of moments: a deleted replica that was still there, a report on its way.
            if (!difference.isLike(test.play(script))) {
                moments++;
                System.out.println("seed " + test.seed + " differed once, at " + difference.what + ": " + difference.granary
                        + " for " + difference.reference);
                continue;
            }
            failures++;
            test.report(seed + done, script, difference);
        }
        System.out.println("calls: " + calls);
        test.survey.forEach((kind, count) -> System.out.println("  " + count + " times " + kind));
        failures += test.survey.size();
        System.out.println("deliberate differences not met in this run: " + allowed.unused());
        System.out.printf("%d sequences, %d calls, %d sequences differ, %d differed once%n", done, made, failures, moments);
        // Moments are few; many are something else.
        failures += moments > Math.max(2, done / 10) ? moments : 0;
        System.out.flush();
        Runtime.getRuntime().halt(failures == 0 ? 0 : 1);
    }

    private Difference play(List<Step> script) throws Exception {
        String root = "/differential-" + ProcessHandle.current().pid() + "/" + ++folders;
        List<Player> players = new ArrayList<>();
        for (Side side : List.of(granary, reference)) {
            Player player = new Player(side, root);
            side.fs("root").mkdirs(new Path(root));
            side.fs("root").setPermission(new Path(root), new FsPermission("777"));
            players.add(player);
        }
        Difference found = null;
        for (int i = 0; i < script.size() && found == null; i++) {
            Step step = script.get(i);
            found = compare(i, step.toString(), step, player -> player.play(step), players);
        }
        Difference left = compare(script.size(), "close", null, Player::end, players);
        found = found == null ? left : found;
        if (found == null) {
            found = compare(script.size(), "tree", null, Player::tree, players);
        }
        for (Player player : players) {
            player.clear();
        }
        return found;
    }

    private interface Question {
        String ask(Player player) throws Exception;
    }

    private Difference compare(int number, String what, Step step, Question question, List<Player> players) throws Exception {
        String ours = within(what, () -> question.ask(players.get(0)));
        String theirs = within(what, () -> question.ask(players.get(1)));
        if (System.getProperty("verbose") != null) {
            System.out.println(number + " " + what + "\n    " + ours + (ours.equals(theirs) ? "" : "\n    " + theirs));
        }
        if (comparable(ours).equals(comparable(theirs)) || allowed.covers(step, ours, theirs)) {
            return null;
        }
        Difference difference = new Difference(number, what, ours, theirs);
        if (System.getProperty("survey") == null) {
            return difference;
        }
        String kind = (step == null ? what : step.call()) + ": " + kind(ours) + " for " + kind(theirs);
        if (survey.merge(kind, 1, Integer::sum) == 1) {
            System.out.println("DIFFERENCE " + kind + "\n    seed " + seed + " call " + number + " " + what + "\n    "
                    + inset(ours, theirs) + "\n    " + inset(theirs, ours));
        }
        return null;
    }

    private static String kind(String answer) {
        return answer.startsWith("! ") ? answer.substring(2, answer.indexOf(':')) : answer.contains(" ") ? "an answer" : answer;
    }

    /** Of an exception its class: the words are each server's own, unless {@code -Dwords} asks for them. */
    private static String comparable(String answer) {
        boolean whole = System.getProperty("words") != null || !answer.startsWith("! ");
        return whole ? answer : answer.substring(0, answer.indexOf(':'));
    }

    private String within(String what, Callable<String> work) throws Exception {
        var result = worker.submit(work);
        try {
            return result.get(STEP_SECONDS_MAX, TimeUnit.SECONDS);
        } catch (TimeoutException late) {
            return "(no answer within " + STEP_SECONDS_MAX + " s)";
        }
    }

    /** Prints the shortest sequence that shows the difference. */
    private void report(long seed, List<Step> script, Difference difference) throws Exception {
        List<Step> shorter = new ArrayList<>(script.subList(0, Math.min(difference.number + 1, script.size())));
        Difference last = difference;
        for (int i = shorter.size() - 2; i >= 0; i--) {
            List<Step> attempt = new ArrayList<>(shorter);
            attempt.remove(i);
            Difference again = play(attempt);
            if (difference.isLike(again)) {
                shorter = attempt;
                last = again;
            }
        }
        System.out.println("DIFFERENCE seed " + seed + ", call " + difference.number + ":");
        for (Step step : shorter) {
            System.out.println("    " + step);
        }
        System.out.println("  at " + last.what + "\n    granary   " + inset(last.granary, last.reference)
                + "\n    reference " + inset(last.reference, last.granary));
        System.out.flush();
    }

    /** Of an answer of many lines only those that the other does not have. */
    private static String inset(String text, String other) {
        if (!text.contains("\n")) {
            return text;
        }
        List<String> others = other.lines().toList();
        return text.lines().filter(line -> !others.contains(line)).map(line -> "\n      " + line).reduce("", String::concat);
    }
}

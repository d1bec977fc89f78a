import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/** Draws sequences of calls from a seed: the same seed gives the same sequence, whatever the answers are. */
final class Script {
    private static final String[] USERS = {"root", "root", "root", "alice", "alice", "bob", "carol"};
    private static final String[] NAMES = {"a", "b", "c", "d", "e f", "ü"};
    private static final String[] PATTERNS = {"*", "?", "d/*", "*/*", "{a,b}", "[a-c]", "*/a", "d*/[!b]", "nothing*", "\\*"};
    private static final String[] MODES = {"777", "755", "750", "700", "644", "640", "600", "000", "1777", "1755", "555", "111"};
    private static final String[] OWNERS = {"root", "alice", "bob", "carol", "-"};
    private static final String[] GROUPS = {"supergroup", "users", "bob", "alice", "-"};
    private static final String[] XATTRS = {"user.a", "user.b", "trusted.t", "security.s", "system.s", "raw.r"};
    private static final String[] ACLS = {
        "user:alice:rwx", "user:bob:r--", "group:users:r-x", "mask::r--", "user::rwx,group::r-x,other::r--",
        "user::rw-,user:bob:rwx,group::r--,other::---", "default:user:alice:rwx", "default:group:users:r--",
        "default:mask::r-x", "default:user::rwx,default:group::r-x,default:other::---", "user:bob:---,group:bob:rwx",
        "user::rwx,user:alice:r-x,group::rwx,mask::rwx,other::r-x,default:user:bob:rw-",
    };
    private static final int[] LENGTHS = {0, 1, 100, 511, 512, 513, 4095, 4096, 4097, 10_000, 70_000};
    private static final long[] BLOCKS = {4096, 8192, 4096, 1 << 20, 4608, 5000, 1024};

    private final Random random;
    private final List<Step> steps = new ArrayList<>();
    private boolean quotas;

    private Script(long seed) {
        random = new Random(seed);
    }

    /** {@code count} calls. */
    static List<Step> draw(long seed, int count) {
        Script script = new Script(seed * 0x9E3779B97F4A7C15L + 1);
        // Each sequence has a bent, so that calls of one kind meet each other.
        int bent = script.random.nextInt(6);
        // HDFS charges quotas for what only snapshots hold; Granary does not. So a sequence has one or the other.
        script.quotas = bent == 1 || bent != 0 && script.random.nextBoolean();
        script.steps.add(Step.of("root", "mkdirs", "d", "777"));
        while (script.steps.size() < count) {
            if (script.random.nextInt(3) == 0) {
                script.bent(bent);
            } else {
                script.any();
            }
        }
        return script.steps;
    }

    private void bent(int bent) {
        switch (bent) {
            case 0 -> snapshot();
            case 1 -> quota();
            case 2 -> acl();
            case 3 -> open();
            case 4 -> xattr();
            default -> files();
        }
    }

    private void any() {
        int choice = random.nextInt(100);
        if (choice < 30) {
            files();
        } else if (choice < 55) {
            names();
        } else if (choice < 70) {
            attributes();
        } else if (choice < 77) {
            open();
        } else if (choice < 82) {
            acl();
        } else if (choice < 86) {
            xattr();
        } else if (choice < 90) {
            snapshot();
        } else if (choice < 93) {
            quota();
        } else {
            questions();
        }
    }

    private void files() {
        switch (random.nextInt(9)) {
            case 0, 1, 2 -> add("create", path(), pick("new", "overwrite", "orphan"), pick(LENGTHS), pick(BLOCKS),
                    1 + random.nextInt(3), pick("CRC32C", "CRC32C", "CRC32"));
            case 3 -> add("append", path(), pick(LENGTHS), pick("same", "new"));
            case 4 -> add("read", path(), pick(LENGTHS), pick(LENGTHS));
            case 5 -> add("readAll", path());
            case 6 -> add("truncate", path(), pick(LENGTHS));
            case 7 -> add("concat", path(), path(), random.nextBoolean() ? path() : "");
            default -> add("checksum", path(), pick("", "100", "512", "4096", "5000"));
        }
    }

    private void names() {
        switch (random.nextInt(11)) {
            case 0, 1 -> add("mkdirs", path(), pick(MODES));
            case 2 -> add("mkdir", path(), pick(MODES), pick("parents", "alone"));
            case 3, 4 -> add("rename", path(), path());
            case 5 -> add("rename2", path(), path(), pick("keep", "overwrite"));
            case 6, 7 -> add("delete", path(), pick("tree", "one"));
            case 8 -> add("list", path());
            case 9 -> add("glob", pick(PATTERNS));
            default -> add("status", path());
        }
    }

    private void attributes() {
        switch (random.nextInt(6)) {
            case 0, 1 -> add("setPermission", path(), pick(MODES));
            case 2 -> add("setOwner", path(), pick(OWNERS), pick(GROUPS));
            case 3 -> add("setTimes", path(), pick("-1", "1000000000000", "1100000000000"), pick("-1", "1200000000000"));
            case 4 -> add("setReplication", path(), pick("1", "2", "3", "0"));
            default -> add("access", path(), pick("r--", "-w-", "--x", "rwx", "r-x"));
        }
    }

    private void open() {
        int slot = random.nextInt(3);
        switch (random.nextInt(8)) {
            case 0, 1 -> add("openNew", slot, path(), pick("new", "overwrite"), pick(BLOCKS));
            case 2 -> add("openAppend", slot, path());
            case 3, 4 -> add("write", slot, pick(LENGTHS));
            case 5 -> add(pick("hflush", "hsync"), slot);
            case 6 -> add("close", slot);
            default -> add(pick("readAll", "isFileClosed", "status"), path());
        }
    }

    private void acl() {
        switch (random.nextInt(7)) {
            case 0, 1 -> add("modifyAcl", path(), pick(ACLS));
            case 2 -> add("setAcl", path(), pick(ACLS));
            case 3 -> add("removeAclEntries", path(), pick("user:alice", "group:users", "default:user:alice", "mask:", "user:"));
            case 4 -> add("removeDefaultAcl", path());
            case 5 -> add("removeAcl", path());
            default -> add("getAcl", path());
        }
    }

    private void xattr() {
        switch (random.nextInt(5)) {
            case 0, 1 -> add("setXAttr", path(), pick(XATTRS), random.nextInt(40), pick("any", "create", "replace"));
            case 2 -> add("getXAttr", path(), pick(XATTRS));
            case 3 -> add("removeXAttr", path(), pick(XATTRS));
            default -> add("listXAttrs", path());
        }
    }

    private void snapshot() {
        if (quotas) {
            names();
            return;
        }
        String name = pick("s1", "s2", "s3");
        switch (random.nextInt(10)) {
            case 0, 1 -> steps.add(Step.of("root", "allowSnapshot", folder()));
            case 2, 3 -> add("createSnapshot", folder(), name);
            case 4 -> add("deleteSnapshot", folder(), name);
            case 5 -> add("renameSnapshot", folder(), name, pick("s1", "s2", "s3"));
            case 6 -> add("snapshotDiff", folder(), name, pick("", "s1", "s2"));
            case 7 -> steps.add(Step.of("root", "disallowSnapshot", folder()));
            case 8 -> add(pick("readAll", "status", "list", "checksum", "summary"),
                    folder() + "/.snapshot/" + name + (random.nextBoolean() ? "" : "/" + pick(NAMES)), "");
            // Not mkdirs: HDFS makes the missing folders before it finds that it may not go on.
            default -> add("setPermission", folder() + "/.snapshot/" + name + "/" + pick(NAMES), "700");
        }
    }

    private void quota() {
        switch (random.nextInt(3)) {
            case 0 -> {
                if (!quotas) {
                    return;
                }
                steps.add(Step.of("root", "setQuota", folder(), pick("3", "6", "-1", "1"), pick("50000", "300000", "-1", "=")));
            }
            case 1 -> add("summary", path());
            default -> add("mkdirs", path(), "755");
        }
    }

    private void questions() {
        switch (random.nextInt(8)) {
            case 0 -> add("summary", path());
            case 1 -> add("blocks", path());
            case 4 -> add("policy", path(), pick("HOT", "COLD", "ALL_SSD", "NONE"));
            case 5 -> add("defaults", path());
            case 6 -> add("exists", path());
            case 2 -> add("recoverLease", path());
            case 3 -> add("linkStatus", path());
            default -> add("listTree", path());
        }
    }

    private void add(String call, Object... args) {
        steps.add(Step.of(pick(USERS), call, args));
    }

    private String folder() {
        return random.nextInt(4) == 0 ? pick(NAMES) : pick(".", "d");
    }

    private String path() {
        StringBuilder path = new StringBuilder(pick(NAMES));
        while (random.nextInt(5) < 2) {
            path.append('/').append(pick(NAMES));
        }
        return random.nextInt(40) == 0 ? "." : path.toString();
    }

    private String pick(String... from) {
        return from[random.nextInt(from.length)];
    }

    private int pick(int[] from) {
        return from[random.nextInt(from.length)];
    }

    private long pick(long[] from) {
        return from[random.nextInt(from.length)];
    }
}

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.hadoop.fs.BlockLocation;
import org.apache.hadoop.fs.ContentSummary;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileChecksum;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FsServerDefaults;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Options.ChecksumOpt;
import org.apache.hadoop.fs.Options.Rename;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.fs.XAttrSetFlag;
import org.apache.hadoop.fs.permission.AclEntry;
import org.apache.hadoop.fs.permission.AclStatus;
import org.apache.hadoop.fs.permission.FsAction;
import org.apache.hadoop.fs.permission.FsPermission;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.protocol.HdfsConstants;
import org.apache.hadoop.hdfs.protocol.SnapshotDiffReport;
import org.apache.hadoop.ipc.RemoteException;
import org.apache.hadoop.util.DataChecksum;

/**
 * Makes a sequence's calls on one cluster and tells each answer as a line of text: the value, or the exception's class
 * and the first line of its message. Times that the test did not set itself are not told.
 */
final class Player {
    private static final long OPEN_MILLIS_MAX = 8_000;
    /** Times from here on are not the test's. */
    private static final long TIME_OWN_MAX = 1_400_000_000_000L;

    private final Side side;
    private final String root;
    private final Mask mask;
    private final Map<String, FSDataOutputStream> open = new TreeMap<>();
    /** A quota was asked for. */
    private boolean quotas = false;

    Player(Side side, String root) {
        this.side = side;
        this.root = root;
        this.mask = new Mask(side);
    }

    /** Makes the call. */
    String play(Step step) throws Exception {
        Path missing = quotas ? firstMissing(step) : null;
        quotas |= step.call().equals("setQuota");
        try {
            return masked(side.as(step.user(), () -> call(side.fs(step.user()), step)));
        } catch (Exception error) {
            String told = told(error);
            if (missing != null && told.contains("QuotaExceededException")) {
                // HDFS leaves the folders that the quota still let it make: see differences.md, mkdirs-whole.
                side.fs("root").delete(missing, true);
            }
            return masked(told);
        }
    }

    /** The first folder on the way to what a call makes that is not there. */
    private Path firstMissing(Step step) throws IOException, InterruptedException {
        String wanted = switch (step.call()) {
            case "mkdirs", "mkdir", "create" -> step.args().get(0);
            case "openNew" -> step.args().get(1);
            default -> null;
        };
        if (wanted == null) {
            return null;
        }
        Path missing = null;
        for (Path at = path(wanted); at.depth() > new Path(root).depth() && !exists(at); at = at.getParent()) {
            missing = at;
        }
        return missing;
    }

    private boolean exists(Path path) throws IOException, InterruptedException {
        try {
            return side.fs("root").exists(path);
        } catch (org.apache.hadoop.security.AccessControlException underAFile) {
            return false;
        }
    }

    private String masked(String text) {
        return mask.apply(text).replace(root, "ROOT");
    }

    private static String told(Throwable error) {
        Throwable cause = error;
        while (cause instanceof java.lang.reflect.UndeclaredThrowableException && cause.getCause() != null) {
            cause = cause.getCause();
        }
        String name = cause.getClass().getName();
        String message = String.valueOf(cause.getMessage());
        if (cause instanceof RemoteException remote) {
            name = remote.getClassName();
            message = message.startsWith(name + ": ") ? message.substring(name.length() + 2) : message;
        }
        return "! " + name.substring(name.lastIndexOf('.') + 1) + ": " + message.lines().findFirst().orElse("");
    }

    private Path path(String relative) {
        return new Path(relative.equals(".") ? root : relative.startsWith("./") ? root + relative.substring(1) : root + "/" + relative);
    }

    private String call(DistributedFileSystem fs, Step step) throws Exception {
        List<String> args = step.args();
        String first = args.get(0);
        return switch (step.call()) {
            case "create", "append", "read", "readAll", "truncate", "concat", "checksum" -> file(fs, step.call(), path(first), args);
            case "openNew", "openAppend", "write", "hflush", "hsync", "close" -> opened(fs, step, first, args);
            case "mkdirs", "mkdir", "rename", "rename2", "delete" -> name(fs, step, path(first), args);
            case "allowSnapshot", "disallowSnapshot", "createSnapshot", "deleteSnapshot", "renameSnapshot", "snapshotDiff" ->
                snapshot(fs, step.call(), path(first), args);
            case "modifyAcl", "setAcl", "removeAclEntries", "removeDefaultAcl", "removeAcl", "getAcl" ->
                acl(fs, step.call(), path(first), args);
            case "setXAttr", "getXAttr", "removeXAttr", "listXAttrs" -> xattr(fs, step.call(), path(first), args);
            case "setPermission", "setOwner", "setTimes", "setReplication", "access", "setQuota" ->
                attribute(fs, step.call(), path(first), args);
            default -> question(fs, step, path(first), first);
        };
    }

    private String file(DistributedFileSystem fs, String call, Path path, List<String> args) throws IOException, InterruptedException {
        switch (call) {
            case "create": {
                int length = Integer.parseInt(args.get(2));
                try (FSDataOutputStream out = create(fs, path, args)) {
                    out.write(bytes(length));
                }
                return "ok";
            }
            case "append": {
                EnumSet<CreateFlag> flags = args.get(2).equals("new")
                        ? EnumSet.of(CreateFlag.APPEND, CreateFlag.NEW_BLOCK) : EnumSet.of(CreateFlag.APPEND);
                try (FSDataOutputStream out = fs.append(path, flags, 4096, null)) {
                    out.write(bytes(Integer.parseInt(args.get(1))));
                }
                return "ok";
            }
            case "read": {
                byte[] found = new byte[Integer.parseInt(args.get(2))];
                try (FSDataInputStream in = fs.open(path)) {
                    int count = in.read(Integer.parseInt(args.get(1)), found, 0, found.length);
                    in.seek(Integer.parseInt(args.get(1)));
                    return count + " hash " + Arrays.hashCode(found) + " then " + in.read();
                }
            }
            case "readAll": return content(fs, path);
            case "truncate": {
                boolean done = fs.truncate(path, Long.parseLong(args.get(1)));
                if (!done) {
                    // How long the cut takes is each server's own; what comes next is to find it done.
                    awaitClosed(side.fs("root"), path);
                }
                return String.valueOf(done);
            }
            case "concat": {
                Path[] sources = args.subList(1, args.size()).stream().filter(arg -> !arg.isEmpty()).map(this::path).toArray(Path[]::new);
                fs.concat(path, sources);
                return "ok";
            }
            default: {
                FileChecksum sum = args.get(1).isEmpty() ? fs.getFileChecksum(path) : fs.getFileChecksum(path, Long.parseLong(args.get(1)));
                return String.valueOf(sum);
            }
        }
    }

    private FSDataOutputStream create(DistributedFileSystem fs, Path path, List<String> args) throws IOException {
        EnumSet<CreateFlag> flags = args.get(1).equals("overwrite")
                ? EnumSet.of(CreateFlag.CREATE, CreateFlag.OVERWRITE) : EnumSet.of(CreateFlag.CREATE);
        long block = Long.parseLong(args.get(3));
        short replication = Short.parseShort(args.get(4));
        ChecksumOpt checksum = new ChecksumOpt(DataChecksum.Type.valueOf(args.get(5)), 512);
        FsPermission permission = FsPermission.getFileDefault().applyUMask(FsPermission.createImmutable((short) 0022));
        if (args.get(1).equals("orphan")) {
            return fs.createNonRecursive(path, permission, flags, 4096, replication, block, null);
        }
        return fs.create(path, permission, flags, 4096, replication, block, null, checksum);
    }

    static byte[] bytes(int length) {
        byte[] bytes = new byte[length];
        for (int i = 0; i < length; i++) {
            bytes[i] = (byte) (i * 13 + (i >> 8) * 5 + length);
        }
        return bytes;
    }

    static String content(DistributedFileSystem fs, Path path) throws IOException {
        try (FSDataInputStream in = fs.open(path)) {
            byte[] all = in.readAllBytes();
            return all.length + " bytes hash " + Arrays.hashCode(all);
        }
    }

    /** Streams that stay open over several calls. */
    private String opened(DistributedFileSystem fs, Step step, String slot, List<String> args) throws IOException {
        FSDataOutputStream held = open.get(slot);
        switch (step.call()) {
            case "openNew", "openAppend" -> {
                if (held != null) {
                    return "(in use)";
                }
                FSDataOutputStream made = step.call().equals("openAppend") ? fs.append(path(args.get(1)))
                        : create(fs, path(args.get(1)), List.of("", args.get(2), "", args.get(3), "2", "CRC32C"));
                open.put(slot, made);
            }
            default -> {
                if (held == null) {
                    return "(not open)";
                }
                switch (step.call()) {
                    case "write" -> held.write(bytes(Integer.parseInt(args.get(1))));
                    case "hflush" -> held.hflush();
                    case "hsync" -> held.hsync();
                    default -> {
                        open.remove(slot);
                        held.close();
                    }
                }
            }
        }
        return "ok";
    }

    private String name(DistributedFileSystem fs, Step step, Path path, List<String> args) throws Exception {
        switch (step.call()) {
            case "mkdirs": return String.valueOf(fs.mkdirs(path, new FsPermission(args.get(1))));
            case "mkdir":
                side.context(step.user()).mkdir(path, new FsPermission(args.get(1)), args.get(2).equals("parents"));
                return "ok";
            case "rename": return String.valueOf(fs.rename(path, path(args.get(1))));
            case "rename2":
                side.context(step.user()).rename(path, path(args.get(1)), args.get(2).equals("overwrite") ? Rename.OVERWRITE : Rename.NONE);
                return "ok";
            default: return String.valueOf(fs.delete(path, args.get(1).equals("tree")));
        }
    }

    private String snapshot(DistributedFileSystem fs, String call, Path path, List<String> args) throws IOException {
        switch (call) {
            case "allowSnapshot" -> fs.allowSnapshot(path);
            case "disallowSnapshot" -> fs.disallowSnapshot(path);
            case "createSnapshot" -> {
                return fs.createSnapshot(path, args.get(1)).toString();
            }
            case "deleteSnapshot" -> fs.deleteSnapshot(path, args.get(1));
            case "renameSnapshot" -> fs.renameSnapshot(path, args.get(1), args.get(2));
            default -> {
                SnapshotDiffReport report = fs.getSnapshotDiffReport(path, args.get(1), args.get(2));
                return report.getDiffList().stream().map(Object::toString).sorted().collect(Collectors.joining("; "));
            }
        }
        return "ok";
    }

    private String acl(DistributedFileSystem fs, String call, Path path, List<String> args) throws IOException {
        switch (call) {
            case "modifyAcl" -> fs.modifyAclEntries(path, AclEntry.parseAclSpec(args.get(1), true));
            case "setAcl" -> fs.setAcl(path, AclEntry.parseAclSpec(args.get(1), true));
            case "removeAclEntries" -> fs.removeAclEntries(path, AclEntry.parseAclSpec(args.get(1), false));
            case "removeDefaultAcl" -> fs.removeDefaultAcl(path);
            case "removeAcl" -> fs.removeAcl(path);
            default -> {
                return acl(fs.getAclStatus(path), path);
            }
        }
        return "ok";
    }

    /** Without owner and group in a snapshot, where HDFS 2.7.3 tells those of now. */
    private static String acl(AclStatus status, Path path) {
        String owner = path.toString().contains("/.snapshot/") ? "" : status.getOwner() + ":" + status.getGroup() + ":";
        return owner + status.isStickyBit() + ":" + status.getEntries();
    }

    private String xattr(DistributedFileSystem fs, String call, Path path, List<String> args) throws IOException {
        switch (call) {
            case "setXAttr" -> {
                EnumSet<XAttrSetFlag> flags = switch (args.get(3)) {
                    case "create" -> EnumSet.of(XAttrSetFlag.CREATE);
                    case "replace" -> EnumSet.of(XAttrSetFlag.REPLACE);
                    default -> EnumSet.of(XAttrSetFlag.CREATE, XAttrSetFlag.REPLACE);
                };
                fs.setXAttr(path, args.get(1), bytes(Integer.parseInt(args.get(2))), flags);
            }
            case "getXAttr" -> {
                return Arrays.toString(fs.getXAttr(path, args.get(1)));
            }
            case "removeXAttr" -> fs.removeXAttr(path, args.get(1));
            default -> {
                return fs.listXAttrs(path).stream().sorted().toList() + " " + xattrs(fs, path);
            }
        }
        return "ok";
    }

    static String xattrs(DistributedFileSystem fs, Path path) throws IOException {
        Map<String, String> all = new TreeMap<>();
        fs.getXAttrs(path).forEach((name, value) -> all.put(name, Arrays.toString(value)));
        return all.toString();
    }

    private String attribute(DistributedFileSystem fs, String call, Path path, List<String> args) throws IOException {
        switch (call) {
            case "setPermission" -> fs.setPermission(path, new FsPermission(args.get(1)));
            case "setOwner" -> fs.setOwner(path, orNull(args.get(1)), orNull(args.get(2)));
            case "setTimes" -> fs.setTimes(path, Long.parseLong(args.get(1)), Long.parseLong(args.get(2)));
            case "setReplication" -> {
                return String.valueOf(fs.setReplication(path, Short.parseShort(args.get(1))));
            }
            case "access" -> fs.access(path, FsAction.getFsAction(args.get(1)));
            default -> fs.setQuota(path, quota(args.get(1)), quota(args.get(2)));
        }
        return "ok";
    }

    private static String orNull(String text) {
        return text.equals("-") ? null : text;
    }

    private static long quota(String text) {
        return text.equals("=") ? HdfsConstants.QUOTA_DONT_SET : Long.parseLong(text);
    }

    private String question(DistributedFileSystem fs, Step step, Path path, String first) throws Exception {
        return switch (step.call()) {
            case "status" -> status(fs.getFileStatus(path));
            case "linkStatus" -> status(fs.getFileLinkStatus(path));
            case "list" -> Stream.of(sorted(fs.listStatus(path))).map(Player::status).collect(Collectors.joining("; "));
            case "listTree" -> {
                List<String> all = new ArrayList<>();
                RemoteIterator<LocatedFileStatus> files = fs.listFiles(path, true);
                while (files.hasNext()) {
                    LocatedFileStatus file = files.next();
                    all.add(status(file) + " " + file.getBlockLocations().length);
                }
                all.sort(null);
                yield String.join("; ", all);
            }
            case "glob" -> {
                FileStatus[] found = fs.globStatus(new Path(root + "/" + first));
                yield found == null ? "null" : Stream.of(sorted(found)).map(Player::status).collect(Collectors.joining("; "));
            }
            case "summary" -> {
                ContentSummary sum = fs.getContentSummary(path);
                yield String.format("%d %d %d quota %d %d used %d", sum.getDirectoryCount(), sum.getFileCount(),
                        sum.getLength(), sum.getQuota(), sum.getSpaceQuota(), sum.getSpaceConsumed());
            }
            case "blocks" -> {
                BlockLocation[] blocks = fs.getFileBlockLocations(path, 0, Long.MAX_VALUE);
                yield Stream.of(blocks).map(block -> block.getOffset() + "+" + block.getLength()).toList().toString();
            }
            case "policy" -> {
                fs.setStoragePolicy(path, step.args().get(1));
                yield "ok";
            }
            case "defaults" -> {
                FsServerDefaults all = fs.getServerDefaults(path);
                yield String.format("%d %d %d %d %d %s", all.getBlockSize(), all.getBytesPerChecksum(), all.getWritePacketSize(),
                        all.getReplication(), all.getTrashInterval(), all.getChecksumType());
            }
            case "exists" -> String.valueOf(fs.exists(path));
            case "isFileClosed" -> String.valueOf(fs.isFileClosed(path));
            case "recoverLease" -> {
                // Whether it is done already depends on time.
                fs.recoverLease(path);
                awaitClosed(side.fs("root"), path);
                yield "asked";
            }
            default -> throw new IllegalArgumentException(step.call());
        };
    }

    /** HDFS compares the bytes of names as signed numbers, Granary as unsigned ones. */
    private static FileStatus[] sorted(FileStatus[] all) {
        Arrays.sort(all, Comparator.comparing(status -> status.getPath().toString()));
        return all;
    }

    static String status(FileStatus status) {
        return String.join(" ", status.getPath().toUri().getPath(), status.isDirectory() ? "folder" : "file",
                String.valueOf(status.getPermission()), String.valueOf(status.hasAcl()), status.getOwner(), status.getGroup(),
                "length " + status.getLen(), "replicas " + status.getReplication(),
                "block " + status.getBlockSize(), "times " + time(status.getModificationTime()) + " " + accessed(status));
    }

    /** A folder that was never given an access time has none in HDFS; in Granary it is that of its making. */
    private static String accessed(FileStatus status) {
        String time = time(status.getAccessTime());
        return status.isDirectory() && time.equals("now") ? "0" : time;
    }

    private static String time(long millis) {
        return millis < TIME_OWN_MAX ? String.valueOf(millis) : "now";
    }

    /** Closes what the sequence left open; the answers are part of the sequence's. */
    String end() throws Exception {
        StringBuilder said = new StringBuilder();
        for (String slot : List.copyOf(open.keySet())) {
            String answer = play(Step.of("root", "close", slot));
            // Of an exception its class.
            answer = answer.startsWith("! ") ? answer.substring(0, answer.indexOf(':')) : answer;
            said.append(slot).append(' ').append(answer).append('\n');
        }
        return said.toString();
    }

    /** The whole tree, as root sees it, a line for each file and folder. */
    String tree() {
        try {
            StringBuilder text = new StringBuilder();
            tree(side.fs("root"), path("."), text);
            return masked(text.toString());
        } catch (Exception error) {
            return masked(told(error));
        }
    }

    private void tree(DistributedFileSystem fs, Path path, StringBuilder text) throws IOException {
        FileStatus status = fs.getFileStatus(path);
        text.append(status(status)).append(' ').append(acl(fs.getAclStatus(path), path)).append(' ').append(xattrs(fs, path));
        if (status.isFile()) {
            awaitClosed(fs, path);
            text.append(' ').append(content(fs, path)).append(' ').append(fs.getFileChecksum(path)).append('\n');
            return;
        }
        text.append('\n');
        for (FileStatus child : sorted(fs.listStatus(path))) {
            tree(fs, child.getPath(), text);
        }
        snapshots(fs, path, text);
    }

    /** A file that was cut inside a block is not closed before a DataNode has cut it too. */
    private static void awaitClosed(DistributedFileSystem fs, Path path) throws IOException {
        long deadline = System.currentTimeMillis() + OPEN_MILLIS_MAX;
        while (!path.toString().contains("/.snapshot/") && !fs.isFileClosed(path) && System.currentTimeMillis() < deadline) {
            try {
                Thread.sleep(20);
            } catch (InterruptedException interrupted) {
                throw new IOException(interrupted);
            }
        }
    }

    private void snapshots(DistributedFileSystem fs, Path path, StringBuilder text) throws IOException {
        FileStatus[] all;
        try {
            all = fs.listStatus(new Path(path, ".snapshot"));
        } catch (IOException noneAllowed) {
            return;
        }
        for (FileStatus snapshot : sorted(all)) {
            tree(fs, snapshot.getPath(), text);
        }
    }

    /** Takes everything away again. */
    void clear() throws Exception {
        DistributedFileSystem fs = side.fs("root");
        var allowed = fs.getSnapshottableDirListing();
        for (var folder : allowed == null ? new org.apache.hadoop.hdfs.protocol.SnapshottableDirectoryStatus[0] : allowed) {
            Path path = folder.getFullPath();
            if ((path + "/").startsWith(root + "/")) {
                for (FileStatus snapshot : fs.listStatus(new Path(path, ".snapshot"))) {
                    fs.deleteSnapshot(path, snapshot.getPath().getName());
                }
                fs.disallowSnapshot(path);
            }
        }
        fs.delete(new Path(root), true);
    }
}

import java.io.File;
import java.io.IOException;
import java.security.PrivilegedExceptionAction;
import java.util.Map;
import java.util.TreeMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileContext;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.security.UserGroupInformation;

/**
 * One of the two clusters that get the same calls: where it is, who asks, and a local folder of its own.
 *
 * <p>A user is who the test says, without a password: that is what an insecure cluster believes.
 */
final class Side {
    /** "granary" or "reference". */
    final String name;
    /** {@code hdfs://HOST:PORT}. */
    final String uri;
    /** What {@code put} reads and {@code get} writes. */
    final File local;

    private final String umask;
    private final Map<String, UserGroupInformation> users = new TreeMap<>();
    private final Map<String, DistributedFileSystem> systems = new TreeMap<>();
    private final Map<String, FileContext> contexts = new TreeMap<>();

    Side(String name, String uri, File local) {
        this(name, uri, local, "022");
    }

    /** A side whose clients have this umask. */
    Side(String name, String uri, File local, String umask) {
        this.umask = umask;
        this.name = name;
        this.uri = uri;
        this.local = local;
        if (!local.isDirectory() && !local.mkdirs()) {
            throw new IllegalStateException("cannot make " + local);
        }
    }

    /** Settings of a client of this cluster. Retries are short: a call that fails shall fail soon. */
    Configuration settings() {
        Configuration conf = new Configuration();
        conf.set("fs.defaultFS", uri);
        conf.set("fs.permissions.umask-mode", umask);
        conf.set("ipc.client.connect.max.retries", "2");
        conf.set("dfs.client.retry.max.attempts", "2");
        conf.set("dfs.client.block.write.locateFollowingBlock.initial.delay.ms", "50");
        return conf;
    }

    /** The user of that name. */
    UserGroupInformation user(String name) {
        return users.computeIfAbsent(name, UserGroupInformation::createRemoteUser);
    }

    /** Does {@code work} as that user. */
    <T> T as(String user, PrivilegedExceptionAction<T> work) throws IOException, InterruptedException {
        return user(user).doAs(work);
    }

    /** The file system as that user sees it: one client for each user, kept. */
    DistributedFileSystem fs(String user) throws IOException, InterruptedException {
        DistributedFileSystem fs = systems.get(user);
        if (fs == null) {
            fs = as(user, () -> (DistributedFileSystem) FileSystem.newInstance(settings()));
            systems.put(user, fs);
        }
        return fs;
    }

    /** The other of Hadoop's two interfaces, as that user sees it. */
    FileContext context(String user) throws IOException, InterruptedException {
        FileContext context = contexts.get(user);
        if (context == null) {
            context = as(user, () -> FileContext.getFileContext(settings()));
            contexts.put(user, context);
        }
        return context;
    }
}

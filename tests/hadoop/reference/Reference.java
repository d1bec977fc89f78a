import java.io.File;
import java.io.IOException;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.server.datanode.DataNode;
import org.apache.hadoop.hdfs.server.namenode.NameNode;
import org.apache.hadoop.metrics2.lib.DefaultMetricsSystem;
import org.apache.hadoop.security.Groups;
import org.apache.hadoop.security.UserGroupInformation;

/**
 * A whole Apache HDFS 2.7.3 in one process: the oracle that Granary's answers are compared with.
 *
 * <p>{@code Reference DIR N [NAME=VALUE ...]} formats DIR, starts a NameNode and N DataNodes on free ports of loopback,
 * prints {@code ready rpc=HOST:PORT} when all of them are known, and ends when its standard input does: it never
 * outlives the test that started it. Further arguments are settings.
 */
public final class Reference {
    private Reference() {}

    public static void main(String[] args) throws Exception {
        File dir = new File(args[0]);
        int datanodes = Integer.parseInt(args[1]);
        Configuration conf = settings(dir);
        for (int i = 2; i < args.length; i++) {
            String[] setting = args[i].split("=", 2);
            conf.set(setting[0], setting[1]);
        }
        // Before anything asks who is in which groups.
        UserGroupInformation.setConfiguration(conf);
        Groups.getUserToGroupsMappingServiceWithLoadedConfiguration(conf);
        DefaultMetricsSystem.setMiniClusterMode(true);
        NameNode.format(conf);
        NameNode namenode = NameNode.createNameNode(new String[0], conf);
        String rpc = "127.0.0.1:" + namenode.getNameNodeAddress().getPort();
        for (int i = 0; i < datanodes; i++) {
            startDataNode(new File(dir, "datanode" + i), rpc, conf);
        }
        System.out.println("ready rpc=" + rpc);
        while (System.in.read() >= 0) {
            // Whoever started this holds the other end of the pipe.
        }
        Runtime.getRuntime().halt(0);
    }

    private static Configuration settings(File dir) {
        Configuration conf = new Configuration();
        conf.set("fs.defaultFS", "hdfs://127.0.0.1:0");
        conf.set("hadoop.tmp.dir", dir + "/tmp");
        conf.set("dfs.namenode.name.dir", "file://" + dir + "/name");
        conf.set("dfs.namenode.http-address", "127.0.0.1:0");
        // Its web interface needs a library that is not among these jars.
        conf.set("dfs.webhdfs.enabled", "false");
        conf.set("dfs.namenode.acls.enabled", "true");
        conf.set("dfs.namenode.fs-limits.min-block-size", "4096");
        // Reading shall not change access times: Granary's does not.
        conf.set("dfs.namenode.accesstime.precision", "10000000000000");
        conf.set("dfs.namenode.safemode.extension", "0");
        conf.set("dfs.heartbeat.interval", "1");
        conf.set("dfs.client.block.write.replace-datanode-on-failure.enable", "false");
        return conf;
    }

    private static void startDataNode(File data, String rpc, Configuration base) throws Exception {
        Configuration conf = new Configuration(base);
        conf.set("fs.defaultFS", "hdfs://" + rpc);
        conf.set("dfs.datanode.data.dir", "file://" + data);
        for (String port : new String[] {"address", "http.address", "ipc.address"}) {
            conf.set("dfs.datanode." + port, "127.0.0.1:0");
        }
        DataNode datanode = DataNode.instantiateDataNode(new String[0], conf);
        datanode.runDatanodeDaemon();
        long deadline = System.currentTimeMillis() + 60_000;
        while (!datanode.isDatanodeFullyStarted()) {
            if (System.currentTimeMillis() > deadline) {
                throw new IOException("a DataNode did not start within 60 s");
            }
            Thread.sleep(20);
        }
    }
}

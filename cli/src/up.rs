//! `granary up`: a whole cluster in this process, until SIGTERM or Ctrl-C.

use std::path::PathBuf;

use crate::connect::Context;
use crate::embedded::{Cluster, ClusterFile, Ports, ports};
use crate::failure::Result;
use crate::output::{Align, Out, Table, note};
use crate::progress::Progress;
use crate::roles::{listen, stop_within, until_told};

/// Options of `granary up`.
#[derive(clap::Args, Debug)]
pub struct UpArgs {
    /// Where all data is kept; made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// DataNodes
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u64).range(1..=ports::DATANODES_MAX as u64))]
    datanodes: u64,
    /// Take PORT, PORT+1, ... instead of 8020, 8030, 9870 and 6380; 0 takes free ones
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(0..=i64::from(ports::BASE_MAX)))]
    port_base: Option<u16>,
    /// Print the addresses as JSON
    #[arg(long)]
    json: bool,
    /// Let roles listen where other machines can connect, as the configuration says
    #[arg(long)]
    insecure: bool,
}

/// Runs `granary up`.
pub async fn run(args: &UpArgs, context: &Context, out: &mut Out) -> Result<()> {
    let mut settings = context.settings.clone();
    if args.insecure {
        settings.set_text(
            "cluster",
            "insecure",
            "true",
            crate::config::Origin::Flag("--insecure".into()),
        )?;
    }
    let mut stop = listen()?;
    let progress = Progress::spinner("starting");
    let ports = Ports::from_base(args.port_base);
    let start = Cluster::start(&settings, &args.dir, args.datanodes as usize, ports);
    let cluster = tokio::select! {
        started = start => started?,
        _ = stop.next() => return Err(crate::failure::Failure::silent(crate::failure::Exit::Interrupted)),
    };
    drop(progress);
    if args.json {
        out.json(cluster.file())?;
    } else {
        addresses(cluster.file()).print(out)?;
        out.line("")?;
        out.line("Type next, in another terminal:")?;
        out.line(format_args!(
            "  {} {}fs put README.md /",
            crate::program::called(),
            cluster_option(cluster.file(), &args.dir)
        ))?;
        out.line("Ctrl-C stops it; what is stored stays.")?;
    }
    out.flush()?;
    let reason = until_told(&mut stop, cluster.ended()).await;
    stop_within(&mut stop, cluster.stop(), reason).await?;
    // Whoever wants JSON is a program, and sees the exit code.
    if !args.json {
        note("stopped");
    }
    Ok(())
}

/// What a command needs to find this cluster: nothing, if it is at the default address.
pub fn cluster_option(file: &ClusterFile, dir: &std::path::Path) -> String {
    if file.namenode == "127.0.0.1:8030" {
        return String::new();
    }
    format!("--cluster {} ", dir.display())
}

/// Where everything listens.
pub fn addresses(file: &ClusterFile) -> Table {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left), ("", Align::Left)]);
    let mut row = |role: &str, addr: &str, what: &str| {
        table.row(vec![role.to_owned(), addr.to_owned(), what.to_owned()]);
    };
    row("NameNode", &file.namenode, "gRPC: --cluster takes it");
    row("", &format!("http://{}", file.http), "status and metrics");
    row("", &file.hadoop_rpc, "hdfs:// for Hadoop and Spark clients");
    for (index, addr) in file.datanodes.iter().enumerate() {
        row(&format!("DataNode {}", index + 1), addr, "block bytes");
    }
    row("kvserve", &file.redis, "Redis protocol: redis-cli -p takes its port");
    row("", &file.kvserve_grpc, "gRPC");
    row("", &format!("http://{}", file.kvserve_http), "status and metrics");
    table
}

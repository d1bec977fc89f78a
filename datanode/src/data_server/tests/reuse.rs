//! Tests of pipelines that follow each other on the same connections.

use super::*;

fn pool() -> Arc<Pool> {
    Arc::new(Pool::new(Timeouts::default(), 4, 10_000))
}

fn spec_of(nodes: &[&Node], id: u64) -> PipelineSpec {
    let block = Block { id, generation_stamp: 1001, length: 0 };
    spec(nodes, Stage::PipelineSetupCreate, block)
}

async fn write_block(nodes: &[&Node], id: u64, data: &[u8], pool: &Arc<Pool>) {
    let opened = BlockWriter::open_pooled(&spec_of(nodes, id), pool).await;
    let mut writer = opened.map_err(|f| f.error).unwrap();
    send(&mut writer, 0, data, 512, true).await;
    writer.end();
}

/// Connections that a node has taken since its start.
async fn connections(node: &Node) -> u64 {
    let mut stream = TcpStream::connect(node.handle.http_addr()).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let name = "granary_datanode_connections_total ";
    let line = answer.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn blocks_that_end_well_follow_each_other_on_one_connection_per_node() {
    let nodes = chain(3).await;
    let all: Vec<&Node> = nodes.iter().collect();
    let pool = pool();
    for id in 7..12 {
        write_block(&all, id, &[id as u8; 2000], &pool).await;
        for node in &nodes {
            let block = Block { id, generation_stamp: 1001, length: 2000 };
            assert_eq!(read(node, block, 0, 2000).await.unwrap(), vec![id as u8; 2000]);
        }
    }
    for node in &nodes {
        // Five reads, each on its own. A DataNode may still be busy with the block before: then one more pipeline.
        let count = connections(node).await;
        assert!((6..10).contains(&count), "{count} connections for five pipelines and five reads");
    }
}

#[tokio::test]
async fn a_block_that_was_given_up_does_not_leave_its_connection_to_the_next() {
    let nodes = chain(2).await;
    let all: Vec<&Node> = nodes.iter().collect();
    let pool = pool();
    let mut writer =
        BlockWriter::open_pooled(&spec_of(&all, 7), &pool).await.map_err(|f| f.error).unwrap();
    writer.send(&mut Some(seal(0, 0, &[1; 512]))).await.map_err(|f| f.error).unwrap();
    writer.end();
    assert_eq!(pool.idle_count(), 0, "an ack is still to come on it");
    write_block(&all, 8, &[2; 700], &pool).await;
    assert_eq!(pool.idle_count(), 1);
}

#[tokio::test]
async fn a_node_that_started_again_takes_the_next_block_of_a_writer_that_knew_it_before() {
    let nodes = chain(2).await;
    let pool = pool();
    // The same port, so that the first one still has a connection to it, which is dead.
    let second_addr = nodes[1].handle.data_addr().to_string();
    write_block(&[&nodes[0], &nodes[1]], 7, &[1; 700], &pool).await;
    assert_eq!(pool.idle_count(), 1);
    let [first, second] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    second.handle.shutdown().await.unwrap();
    let mut settings = config(second.folder.path());
    settings.data_addr = second_addr;
    let again = start(settings).await.unwrap();
    let second = Node { handle: again, folder: second.folder };
    write_block(&[&first, &second], 8, &[2; 700], &pool).await;
    let block = Block { id: 8, generation_stamp: 1001, length: 700 };
    assert_eq!(read(&second, block, 0, 700).await.unwrap(), vec![2; 700]);
}

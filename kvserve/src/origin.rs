//! Tables are read through the client library, which verifies checksums and moves between replicas.

use std::sync::Arc;

use bytes::Bytes;
use client::Fs;
use proto::{Code, Error, FsPath, Result};
use tokio::sync::OnceCell;

use crate::fetch::{Origin, Source};

/// An origin that connects to the cluster when the first table is fetched, and again until that works.
pub fn cluster(config: client::Config) -> Origin {
    let connection = Arc::new(OnceCell::new());
    Origin::new(move |path| {
        let (connection, config) = (connection.clone(), config.clone());
        Box::pin(async move {
            let fs: &Fs = connection.get_or_try_init(|| Fs::connect(config)).await?;
            open(fs, &path).await
        })
    })
}

async fn open(fs: &Fs, path: &str) -> Result<Source> {
    let reader = Arc::new(fs.open(&FsPath::parse(path)?).await?);
    Ok(Source::new(reader.len(), move |offset, length| {
        let reader = reader.clone();
        Box::pin(async move {
            let mut buffer = vec![0; length];
            let count = reader.read_at(offset, &mut buffer).await?;
            if count == 0 {
                let what = format!("the file ends at offset {offset}, before its length");
                return Err(Error::new(Code::Unavailable, what));
            }
            buffer.truncate(count);
            Ok(Bytes::from(buffer))
        })
    }))
}

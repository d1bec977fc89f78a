//! The file system that is measured: Granary through its client, or (feature `reference`) any HDFS through the crate
//! hdfs-native. Both do the same work.

use bytes::Bytes;
use client::{CreateOptions, Fs, Recursion};
use proto::FsPath;

use crate::failure::Result;

/// Something with files.
#[derive(Clone)]
pub enum Target {
    /// Granary.
    Granary(Fs),
    /// Another file system that speaks HDFS's protocols.
    #[cfg(feature = "reference")]
    Reference(std::sync::Arc<hdfs_native::Client>),
}

#[cfg(feature = "reference")]
fn told(error: hdfs_native::HdfsError) -> crate::failure::Failure {
    crate::failure::Failure::new(crate::failure::Exit::Failure, format!("the reference: {error}"))
}

impl Target {
    /// Connects to `hdfs://host:port`, as the user who runs this if `user` is empty.
    #[cfg(feature = "reference")]
    pub fn reference(url: &str, user: &str) -> Result<Self> {
        let mut client = hdfs_native::client::ClientBuilder::new().with_url(url);
        if !user.is_empty() {
            client = client.with_user(user);
        }
        Ok(Self::Reference(std::sync::Arc::new(client.build().map_err(told)?)))
    }

    /// Connects to `hdfs://host:port`.
    #[cfg(not(feature = "reference"))]
    pub fn reference(_url: &str, _user: &str) -> Result<Self> {
        let message = "this granary was built without the client of other file systems, which \
                       --reference and `bench hadoop` take";
        Err(crate::failure::Failure::usage(message)
            .hint("build it with: cargo build --release -p cli --features reference"))
    }

    /// Makes a folder and those above it.
    pub async fn mkdirs(&self, path: &FsPath) -> Result<()> {
        match self {
            Self::Granary(fs) => {
                fs.mkdirs(path, 0o755).await?;
            }
            #[cfg(feature = "reference")]
            Self::Reference(client) => {
                client.mkdirs(path.as_str(), 0o755, true).await.map_err(told)?;
            }
        }
        Ok(())
    }

    /// Asks what a path is.
    pub async fn info(&self, path: &FsPath) -> Result<()> {
        match self {
            Self::Granary(fs) => {
                fs.status(path).await?;
            }
            #[cfg(feature = "reference")]
            Self::Reference(client) => {
                client.get_file_info(path.as_str()).await.map_err(told)?;
            }
        }
        Ok(())
    }

    /// Writes `content` `times` times as one file, and closes it. Without content: create and complete.
    pub async fn write(&self, path: &FsPath, content: &Bytes, times: u64) -> Result<()> {
        match self {
            Self::Granary(fs) => {
                let options = CreateOptions { create_parents: false, ..CreateOptions::default() };
                let mut file = fs.create(path, options).await?;
                for _ in 0..times {
                    file.write_bytes(content.clone()).await?;
                }
                file.close().await?;
            }
            #[cfg(feature = "reference")]
            Self::Reference(client) => {
                let options = hdfs_native::WriteOptions::default().create_parent(false);
                let mut file = client.create(path.as_str(), options).await.map_err(told)?;
                for _ in 0..times {
                    file.write_bytes(content.clone()).await.map_err(told)?;
                }
                file.close().await.map_err(told)?;
            }
        }
        Ok(())
    }

    /// Reads a file from front to back, and gives its bytes.
    pub async fn read(&self, path: &FsPath) -> Result<u64> {
        let mut bytes = 0;
        match self {
            Self::Granary(fs) => {
                let mut file = fs.open(path).await?;
                while let Some(part) = file.read_next().await? {
                    bytes += std::hint::black_box(part).len() as u64;
                }
            }
            #[cfg(feature = "reference")]
            Self::Reference(client) => {
                use futures_util::StreamExt;
                let file = client.read(path.as_str()).await.map_err(told)?;
                let length = file.file_length();
                let mut parts = Box::pin(file.read_range_stream(0, length));
                while let Some(part) = parts.next().await {
                    bytes += std::hint::black_box(part.map_err(told)?).len() as u64;
                }
            }
        }
        Ok(bytes)
    }

    /// Deletes a folder with everything in it.
    pub async fn delete(&self, path: &FsPath) -> Result<()> {
        match self {
            Self::Granary(fs) => {
                fs.delete(path, Recursion::Yes).await?;
            }
            #[cfg(feature = "reference")]
            Self::Reference(client) => {
                client.delete(path.as_str(), true).await.map_err(told)?;
            }
        }
        Ok(())
    }
}

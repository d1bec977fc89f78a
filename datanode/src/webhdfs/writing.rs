//! CREATE and APPEND: a request's body becomes the bytes of a file.
//!
//! The file is opened before the first byte of the body is asked for, so that a client that waits for leave
//! (`Expect: 100-continue`) learns of a refusal first. Each transfer is a task of its own: when its connection goes, it
//! still cleans up. What holds: an answer without an error means that the file is closed and on stable storage; a file
//! that was made here and whose body did not come to its end is deleted, so that nobody takes it for complete; one
//! that was appended to keeps what it had, and is closed.

use ::webhdfs::{Exception, answer, paths};
use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use client::{CreateOptions, FileWriter, Fs, Recursion};
use futures_util::StreamExt;
use ipc::exceptions::{self as class, Verb};
use proto::{Code, Error, FsPath, Result};

use super::Ask;

/// Permission bits of a file if none are asked for.
const FILE_MODE: u32 = 0o644;

/// What a request fails with, and its body if none of it was read.
type Refused = (Exception, Option<Body>);

/// CREATE.
pub(super) async fn create(ask: Ask, body: Body) -> std::result::Result<Response, Refused> {
    let options = match options(&ask) {
        Ok(options) => options,
        Err(exception) => return Err((exception, Some(body))),
    };
    let location = format!("hdfs://{}{}", ask.namenode, paths::encode_path(ask.path.as_str()));
    in_a_task(ask, body, Open::Create(options), Verb::Create).await?;
    let mut response = answer::empty();
    *response.status_mut() = StatusCode::CREATED;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// APPEND.
pub(super) async fn append(ask: Ask, body: Body) -> std::result::Result<Response, Refused> {
    if let Err(exception) = ask.params.int("buffersize", 1) {
        return Err((exception, Some(body)));
    }
    in_a_task(ask, body, Open::Append, Verb::Append).await?;
    Ok(answer::empty())
}

/// How a file is opened.
enum Open {
    Create(CreateOptions),
    Append,
}

fn options(ask: &Ask) -> ::webhdfs::Result<CreateOptions> {
    let params = &ask.params;
    params.int("buffersize", 1)?;
    let mode = params.mode("permission")?.unwrap_or(FILE_MODE);
    let mut options = CreateOptions {
        overwrite: params.boolean("overwrite", false)?,
        create_parents: params.boolean("createparent", true)?,
        mode: Some(mode),
        unmasked: Some(params.mode("unmaskedpermission")?.unwrap_or(mode)),
        replication: params.short("replication", 1)?.map_or(0, |asked| asked.unsigned_abs().into()),
        block_bytes: params.long("blocksize", 1)?.map_or(0, i64::unsigned_abs),
        erasure_policy: None,
    };
    for flag in params.text("createflag").unwrap_or("").split(',').filter(|flag| !flag.is_empty()) {
        match flag.to_lowercase().as_str() {
            "overwrite" => options.overwrite = true,
            // How blocks are placed and kept is the NameNode's business.
            "create"
            | "sync_block"
            | "lazy_persist"
            | "new_block"
            | "no_local_write"
            | "should_replicate"
            | "ignore_client_locality" => {}
            other => {
                return Err(Exception::parameter(
                    "createflag",
                    format_args!("No enum constant org.apache.hadoop.fs.CreateFlag.{other}"),
                ));
            }
        }
    }
    Ok(options)
}

async fn in_a_task(
    ask: Ask,
    body: Body,
    open: Open,
    verb: Verb,
) -> std::result::Result<(), Refused> {
    let permit = match ask.web.permit() {
        Ok(permit) => permit,
        Err(exception) => return Err((exception, Some(body))),
    };
    let task = tokio::spawn(async move {
        let outcome = transfer(ask, body, open, verb).await;
        drop(permit);
        outcome
    });
    task.await.unwrap_or_else(|panic| {
        let text = format!("the transfer ended without an answer: {panic}");
        Err((Exception::new(class::RUNTIME, text), None))
    })
}

async fn transfer(
    ask: Ask,
    body: Body,
    open: Open,
    verb: Verb,
) -> std::result::Result<(), Refused> {
    let fs = match ask.fs().await {
        Ok(fs) => fs,
        Err(exception) => return Err((exception, Some(body))),
    };
    let created = matches!(open, Open::Create(_));
    let opened = match open {
        Open::Create(options) => fs.create(&ask.path, options).await,
        Open::Append => fs.append(&ask.path).await,
    };
    let mut writer = match opened {
        Ok(writer) => writer,
        Err(error) => return Err((Exception::of(error, verb), Some(body))),
    };
    let inode = writer.inode();
    let mut body = body.into_data_stream();
    let mut stopping = ask.web.stopping.clone();
    let copied = tokio::select! {
        copied = copy(&mut body, &mut writer) => copied,
        _ = stopping.wait_for(|stop| *stop) => {
            Err(Error::new(Code::Unavailable, "the DataNode stops"))
        }
    };
    let outcome = match copied {
        Ok(()) => writer.close().await.map(|_status| ()),
        Err(error) => {
            drop(writer);
            Err(error)
        }
    };
    let Err(error) = outcome else { return Ok(()) };
    tracing::info!(path = %ask.path, user = ask.user, %error, "a transfer over WebHDFS failed");
    let cleaned =
        if created { discard(&fs, &ask.path, inode).await } else { settle(&fs, &ask.path).await };
    if let Err(error) = cleaned {
        tracing::warn!(path = %ask.path, %error, "what was left of it stays until its lease ends");
    }
    Err((Exception::of(error, verb), Some(Body::from_stream(body))))
}

/// Copies the body to the file, as fast as the slower of both.
async fn copy(body: &mut BodyDataStream, writer: &mut FileWriter) -> Result<()> {
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| {
            Error::new(Code::Cancelled, format!("the body of the request broke off: {error}"))
        })?;
        writer.write_bytes(bytes).await?;
    }
    Ok(())
}

/// Deletes the file that was made here, unless its path means another by now.
async fn discard(fs: &Fs, path: &FsPath, inode: u64) -> Result<()> {
    match fs.try_status(path).await? {
        Some(status) if status.inode == inode => fs.delete(path, Recursion::No).await.map(drop),
        _ => Ok(()),
    }
}

/// Lets the NameNode close a file that was appended to, with what reached every replica.
async fn settle(fs: &Fs, path: &FsPath) -> Result<()> {
    fs.recover_lease(path).await.map(drop)
}

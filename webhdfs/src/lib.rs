//! WebHDFS, as far as NameNode and DataNode share it: what a request says, what an answer looks like, and a port that
//! bounds what strangers may take from it.
//!
//! | module | owns |
//! |---|---|
//! | [`paths`] | paths and parameters to and from URLs |
//! | [`params`] | the parameters of a request, parsed totally, with HDFS's names, ranges and error texts |
//! | [`exception`] | RemoteException: an error as clients of WebHDFS get it |
//! | [`answer`] | answers that both roles give |
//! | [`port`] | a listener that bounds connections, and their silence |
//!
//! Knows no operation: which there are, and what they do, is the business of the roles. It does not authenticate: a
//! user is who `user.name` says, as in Hadoop's "simple" mode.

pub mod answer;
pub mod exception;
pub mod params;
pub mod paths;
pub mod port;

pub use exception::Exception;
pub use params::Params;
pub use port::{Peer, Port};

/// What every path of a request begins with.
pub const PREFIX: &str = "/webhdfs/v1";

/// Who calls if a request does not say so: the static user of Hadoop's web pages.
pub const USER_DEFAULT: &str = "dr.who";

/// `Result` with what a client is told.
pub type Result<T, E = Exception> = std::result::Result<T, E>;

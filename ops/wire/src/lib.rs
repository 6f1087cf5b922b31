//! TCP links on loopback that can be cut, mended and made long: the network between two programs while a network fails.
//!
//! A [`Link`] listens on a loopback port and carries each connection to one target. A client that gets the link's
//! address instead of the target's can be cut off from it, and learns no more of it than a network would show.
//!
//! ```
//! use skytale_wire::{Cut, Link};
//! use std::io;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # async fn example() -> io::Result<()> {
//! let server = TcpListener::bind("127.0.0.1:0").await?;
//! let link = Link::open(server.local_addr()?)?;
//! let mut client = TcpStream::connect(link.address()).await?;
//! let (mut accepted, _) = server.accept().await?;
//!
//! link.cut(Cut::Silent);
//! client.write_all(b"lost").await?;
//! link.mend();
//! // Bytes were lost, so the connection is gone on both sides.
//! assert!(accepted.read(&mut [0; 16]).await.is_err());
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! Effect of each [`Cut`], and of [`Link::mend`] after it:
//!
//! | cut | bytes | a new connection | when mended |
//! |---|---|---|---|
//! | `Silent` | lost, both ways | is accepted and carries nothing | all connections of the time of the cut are reset |
//! | `Requests` | lost from the one who dialled to the target; answers go on | is carried, the same way | the same |
//! | `Answers` | lost from the target to the one who dialled; requests go on | is carried, the same way | the same |
//! | `Held` | wait, both ways, as far as buffers go | waits | everything goes on, late; nothing was lost |
//! | `Reset` | all connections are reset | is reset | new connections are carried again |
//!
//! This crate does not simulate UDP, loss of single packets, limits of bandwidth, or a network between machines.

mod carry;
mod link;
mod way;

pub use link::{CONNECTIONS_MAX, Cut, Link};
pub use way::{CHUNK_BYTES_MAX, CHUNKS_MAX};

//! Names of the account's channels.

use crate::client;
use crate::command::Session;
use crate::output::Outcome;
use skytale_proto::ChannelId;
use skytale_proto::rest::{ChannelName, Channels};
use skytale_sdk::ChannelInfo;
use skytale_sdk::internals::net::Method;
use std::collections::HashMap;

/// Pages of names that are asked for, at most.
const PAGES_MAX: usize = 100;

/// One name of each channel that has any: the first, by the alphabet.
pub(super) type Names = HashMap<ChannelId, ChannelName>;

/// The names of some channels. A name is a convenience: where the API does not tell them there are none.
pub(super) async fn of(session: &Session, channels: &[ChannelInfo]) -> Names {
    match ask(session, channels).await {
        Ok(names) => names,
        Err(failure) => {
            let code = failure.code();
            session
                .output
                .note(format_args!("the account's names of channels are not shown ({code})"));
            Names::new()
        }
    }
}

async fn ask(session: &Session, channels: &[ChannelInfo]) -> Outcome<Names> {
    let mut names = Names::new();
    if channels.is_empty() {
        return Ok(names);
    }
    let client = client::account(&session.loaded)?;
    let mut path = "/v1/channels".to_owned();
    for _ in 0..PAGES_MAX {
        let page: Channels = client
            .call(Method::Get, &path, None::<&()>)
            .await
            .map_err(client::failed(&session.loaded))?;
        for named in page.channels {
            if channels.iter().any(|channel| channel.id == named.channel) {
                names.entry(named.channel).or_insert(named.name);
            }
        }
        match page.next {
            Some(next) => path = format!("/v1/channels?after={next}"),
            None => break,
        }
    }
    Ok(names)
}

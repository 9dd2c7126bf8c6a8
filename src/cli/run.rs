//! `run`: the proxy.

use tracing::{error, info};

use super::{Failure, block_on, init_telemetry, keep_to_itself};
use crate::{
    app::App,
    clock::Clock,
    config::{Config, DEFAULT, Sources},
    deliberate::panic_if_asked,
    shutdown,
};

pub(super) fn run(sources: Sources) -> Result<(), Failure> {
    let config = Config::load(&sources)?;
    // They hold secrets, and nobody reads them again.
    drop(sources);
    init_telemetry(&config.log)?;
    keep_to_itself(&config);
    block_on(serve(config))?
}

/// Binds, says where, and runs until told to stop.
pub(super) async fn serve(config: Config) -> Result<(), Failure> {
    let signals = shutdown::Signals::listen();
    let hangup = shutdown::Hangup::listen();
    let (Ok(mut signals), Ok(mut hangup)) = (signals, hangup) else {
        return Err(Failure::wrong("the system gives no signal handlers"));
    };
    let proxies: Vec<_> = config
        .proxies
        .iter()
        .map(|proxy| {
            let upstream = config.upstream(&proxy.otherwise.upstream);
            let origin = upstream.map(|upstream| upstream.url.origin().ascii_serialization());
            (proxy.name.clone(), origin)
        })
        .collect();
    // Binding may wait for an address.
    let app = tokio::select! {
        app = App::bind(config, Clock::system()) => app?,
        () = signals.next() => return Ok(()),
    };
    for ((name, upstream), addr) in proxies.iter().zip(app.listens_at()) {
        info!(
            // The simple form's proxy needs no name.
            proxy.name = (name != DEFAULT).then_some(name),
            proxy.addr = addr,
            admin.addr = app.admin_listens_at(),
            upstream,
            version = crate::VERSION,
            "Listening"
        );
    }
    let hangup = async || {
        hangup.next().await;
        panic_if_asked("hangup");
    };
    let result = app.run(async || signals.next().await, hangup).await;
    result.map_err(|died| {
        error!(error = %died, "Stopping");
        Failure::wrong(died)
    })
}

//! `run`: the proxy.

use tracing::{error, info};

use super::{Failure, init_telemetry, runtime};
use crate::{
    app::App,
    clock::Clock,
    config::{Config, Sources},
    shutdown,
};

pub(super) fn run(sources: &Sources) -> Result<(), Failure> {
    let config = Config::load(sources)?;
    init_telemetry(&config.log)?;
    runtime()?.block_on(serve(config))
}

/// Binds, says where, and runs until told to stop.
pub(super) async fn serve(config: Config) -> Result<(), Failure> {
    let signals = shutdown::Signals::listen();
    let hangup = shutdown::survive_hangup();
    let (Ok(mut signals), Ok(hangup)) = (signals, hangup) else {
        return Err(Failure::wrong("the system gives no signal handlers"));
    };
    let upstream = config.upstream.origin().ascii_serialization();
    let app = App::bind(config, Clock::system()).await?;
    info!(proxy.addr = ?app.addrs(), admin.addr = ?app.admin_addrs(), upstream, version = crate::VERSION, "Listening");
    let run = app.run(async || signals.next().await);
    let result = tokio::select! {
        result = run => result,
        () = hangup => unreachable!("the hangup handler never ends"),
    };
    result.map_err(|died| {
        error!(error = %died, "Stopping");
        Failure::wrong(died)
    })
}

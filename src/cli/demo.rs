//! `demo`: the real proxy between a stand-in IMS and a stand-in AEM, all on this machine.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use http::StatusCode;

use super::{Failure, Settings, block_on, init_telemetry, parse_duration, print, run};
use crate::{
    config::{Config, Listen, Log, Sources},
    shutdown::{Ignored, Signals},
    standin::{Options, StandIns, ims::Fault},
    tls,
};

#[derive(Args)]
pub(super) struct Demo {
    /// How long the stand-in's tokens live; try 10s and watch the log
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "24h")]
    token_lifetime: Duration,
    /// What the stand-in IMS answers to every exchange
    #[arg(long, value_enum, default_value = "none")]
    ims_fault: ImsFault,
    /// Where the stand-in AEM listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082")]
    aem_listen: SocketAddr,
    /// Where the stand-in IMS listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083")]
    ims_listen: SocketAddr,
    /// Where the blob storage of the stand-in AEM listens [default: any port at AEM's address]
    #[arg(long, value_name = "ADDRESS")]
    blob_listen: Option<SocketAddr>,
    /// Run only the stand-ins, over TLS, and write service_token.json, oauth_credentials.json
    /// and ca.pem for a proxy elsewhere into DIR
    #[arg(long, value_name = "DIR")]
    standins_only: Option<PathBuf>,
    /// With --standins-only: the host name under which they are reached
    #[arg(long, value_name = "NAME", default_value = "localhost", requires = "standins_only")]
    host: String,
}

/// Ways in which IMS disappoints.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ImsFault {
    /// It works
    None,
    /// 429 with Retry-After: 30
    Throttled,
    /// 500, as for a project that was moved to OAuth
    InternalError,
    /// 400, as for a revoked certificate
    UnknownCertificate,
    /// 401, wrong secret
    WrongSecret,
    /// A login page instead of JSON, as from a captive portal
    Html,
    /// No answer at all
    Hang,
}

impl ImsFault {
    fn fault(self) -> Option<Fault> {
        match self {
            Self::None => None,
            Self::Throttled => Some(Fault::throttled(Some(30))),
            Self::InternalError => Some(Fault::internal_error()),
            Self::UnknownCertificate => Some(Fault::refusal(
                StatusCode::BAD_REQUEST,
                "invalid_token",
                "Could not match JWT signature to any of the bindings",
            )),
            Self::WrongSecret => Some(Fault::refusal(StatusCode::UNAUTHORIZED, "invalid_client", "")),
            Self::Html => Some(Fault::raw(StatusCode::OK, "text/html", "<html>Please log in</html>")),
            Self::Hang => Some(Fault::Hang),
        }
    }
}

impl Demo {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let mut sources = settings.sources();
        // A demo is not to be misled by the variables of a real installation, but listens, logs and lets through as told.
        sources.file = None;
        sources.variables.0.retain(|(name, _)| name.to_str().is_some_and(is_of_the_demo_too));
        let log: Log = Config::section(&sources, "log")?;
        init_telemetry(&log)?;
        tls::install();
        block_on(async {
            match &self.standins_only {
                Some(dir) => self.standins(dir).await,
                None => self.all(sources).await,
            }
        })?
    }

    /// The stand-ins and the proxy between them.
    async fn all(&self, mut sources: Sources) -> Result<(), Failure> {
        // Keys take their time, and the proxy comes after.
        let _ignored = Ignored::listen().map_err(Failure::wrong)?;
        let standins = self.start(Vec::new()).await?;
        let document = standins.credentials_document.to_string();
        sources.variables.0.push(("AEM_PROXY_CREDENTIALS_JSON".into(), OsString::from(document)));
        let is_of_the_demo_too =
            |key: &str| key.contains("listen") || key.starts_with("log.") || key == "policy";
        sources.flags.retain(|(key, _)| is_of_the_demo_too(key));
        sources.flags.push(("upstream", standins.aem_origin.clone()));
        let config = Config::load(&sources)?;
        drop(sources);
        let welcome = self.welcome(&config, &standins);
        let greet = async {
            standins.ims.attempts_reach(1).await;
            print_in_background(welcome);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = run::serve(config) => result,
            () = greet => Ok(()),
        }
    }

    /// The stand-ins alone, for a proxy in another container.
    async fn standins(&self, dir: &Path) -> Result<(), Failure> {
        let mut signals = Signals::listen().map_err(Failure::wrong)?;
        let standins = self.start(vec![self.host.clone()]).await?;
        // Who waits for service_token.json has waited for all three.
        let oauth = standins.oauth.lone_project_document();
        let written = write(dir, "ca.pem", standins.ca_pem.as_deref().unwrap_or_default())
            .and_then(|()| write(dir, "oauth_credentials.json", &oauth.to_string()))
            .and_then(|()| write(dir, "service_token.json", &standins.credentials_document.to_string()));
        written.map_err(|error| Failure::wrong(format!("cannot write to {}: {error}", dir.display())))?;
        print_in_background(format!(
            "Stand-in AEM at {}, stand-in IMS at {}; wrote ca.pem, oauth_credentials.json and service_token.json to {}\n",
            standins.aem_origin,
            standins.ims_endpoint,
            dir.display()
        ));
        signals.next().await;
        Ok(())
    }

    async fn start(&self, tls_names: Vec<String>) -> Result<StandIns, Failure> {
        let options = Options {
            ims: self.ims_listen,
            aem: self.aem_listen,
            blob: self.blob_listen.unwrap_or((self.aem_listen.ip(), 0).into()),
            tls_names,
            token_lifetime: self.token_lifetime,
            ..Options::default()
        };
        let standins = StandIns::start(options).await.map_err(|error| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Failure::wrong(format!(
                "the stand-ins: {error}{cause}; choose others with --aem-listen, --ims-listen and --blob-listen"
            ))
        })?;
        standins.ims.set_always(self.ims_fault.fault());
        Ok(standins)
    }

    fn welcome(&self, config: &Config, standins: &StandIns) -> String {
        let proxy = config.proxies.first().map(|proxy| shown(&proxy.listen)).unwrap_or_default();
        let admin = config.admin.listen.on().map(shown);
        let (aem, ims) = (&standins.aem_origin, &standins.ims_endpoint);
        let status = admin.map(|admin| format!("  curl {admin}/status\n")).unwrap_or_default();
        let works =
            if self.ims_fault == ImsFault::None { "200, authenticated" } else { "503: IMS gives no token" };
        format!(
            "
  your app ---> proxy {proxy} ---> AEM {aem} (stand-in)
                  '---> IMS {ims} (stand-in), one signed JWT for each token

Try in another terminal:

  curl -i {proxy}/api/assets.json        # {works}
  curl -i {aem}/api/assets.json        # 401: the same request without the proxy
  curl {proxy}/echo/any/path             # what AEM gets to see
{status}
Ctrl-C stops it all.

"
        )
    }
}

/// Prints without waiting for the reader: the proxy runs on the thread that calls this.
fn print_in_background(text: String) {
    drop(tokio::task::spawn_blocking(move || print(&text)));
}

fn is_of_the_demo_too(name: &str) -> bool {
    matches!(name, "RUST_LOG" | "AEM_PROXY_LISTEN" | "AEM_PROXY_ADMIN__LISTEN" | "AEM_PROXY_POLICY")
        || name == "AEM_PROXY_LISTEN_REUSE_PORT"
        || name == "AEM_PROXY_RULES"
        || name.starts_with("AEM_PROXY_LOG__")
}

fn shown(listen: &Listen) -> String {
    match listen {
        Listen::Unix(path) => format!("--unix-socket {} http://localhost", path.display()),
        listen => format!("http://{listen}"),
    }
}

/// Writes beside and renames: whoever waits for the file finds it whole. Only the owner can read it.
fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let beside = dir.join(format!(".{name}"));
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(beside, dir.join(name))
}

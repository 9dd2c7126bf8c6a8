//! The command line: flags, subcommands, exit codes.

mod check;
#[cfg_attr(not(feature = "demo"), path = "cli/no_demo.rs")]
mod demo;
mod probe;
mod run;
mod token;

use std::{
    ffi::OsString,
    fmt, io,
    io::IsTerminal,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::ExitCode,
    sync::LazyLock,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};

use crate::{
    app,
    config::{Config, ConfigError, Log, LogFormat, Sources, describe},
    secret::process,
    telemetry,
};

/// A local authenticating reverse proxy for Adobe Experience Manager as a Cloud Service.
///
/// It holds Adobe's credentials, keeps an access token fresh in the background, and forwards requests to AEM
/// with `Authorization: Bearer` set. Point the app at it instead of at AEM.
#[derive(Parser)]
#[command(name = "aem-auth-proxy", version = VERSION_LINE.as_str(), after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy (the default)
    Run,
    /// Run the proxy against built-in stand-ins for IMS and AEM: no account, file or network needed
    Demo(demo::Demo),
    /// Try everything once, and say in words what is right, what is wrong and what to do
    Check(check::Check),
    /// Get a token and print what is known of it
    Token(token::Token),
    /// Ask the running proxy whether it is well; for container health checks
    Health(probe::Health),
    /// Wait until the running proxy is ready; for the app's entrypoint
    Wait(probe::Wait),
    /// Print the effective configuration, each value with where it came from
    Config,
    /// Print shell completions
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Every flag has an environment variable, AEM_PROXY_ and its name, and a key in the TOML file.
#[derive(Args)]
#[command(next_help_heading = "Configuration")]
struct Settings {
    /// TOML file to read [AEM_PROXY_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// AEM's origin, https://author-pX-eY.adobeaemcloud.com [AEM_PROXY_UPSTREAM]
    #[arg(long, value_name = "URL", global = true)]
    upstream: Option<String>,
    /// Where the app finds the proxy: IP:PORT, localhost:PORT or unix:PATH [AEM_PROXY_LISTEN; default 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", global = true)]
    listen: Option<String>,
    /// Adobe's JSON document: service credentials, OAuth or a local token [AEM_PROXY_CREDENTIALS_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    credentials_file: Option<String>,
    /// bearer; none or basic for a local AEM SDK [AEM_PROXY_AUTH; default bearer]
    #[arg(long, value_name = "KIND", global = true)]
    auth: Option<String>,
    /// PEM certificates to trust beside the system's roots, for IMS and AEM [AEM_PROXY_CA_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Option<String>,
    /// Replaces the credentials' own imsEndpoint [AEM_PROXY_IMS_ENDPOINT]
    #[arg(long, value_name = "HOST", global = true)]
    ims_endpoint: Option<String>,
    /// What passes: read-only, graphql-persisted, assets-read, assets-write or full [AEM_PROXY_POLICY; default full]
    #[arg(long, value_name = "PRESET", global = true)]
    policy: Option<String>,
    /// The admin listener, or off [AEM_PROXY_ADMIN__LISTEN; default 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin_listen: Option<String>,
    /// error, warn, info, debug, trace, or a filter per module [AEM_PROXY_LOG__LEVEL; default info]
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    /// auto, text or json [AEM_PROXY_LOG__FORMAT; default auto: text on a terminal]
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<String>,
}

/// How a command prints.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For machines
    Json,
}

impl Settings {
    fn sources(&self) -> Sources {
        let flags = [
            ("upstream", &self.upstream),
            ("listen", &self.listen),
            ("credentials_file", &self.credentials_file),
            ("auth", &self.auth),
            ("ca_file", &self.ca_file),
            ("ims_endpoint", &self.ims_endpoint),
            ("policy", &self.policy),
            ("admin.listen", &self.admin_listen),
            ("log.level", &self.log_level),
            ("log.format", &self.log_format),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        Sources::of_process(self.config.clone(), given.collect())
    }
}

/// Reads the process's arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    process::close();
    telemetry::log_panics();
    // The hook has logged it.
    let exit = catch_unwind(AssertUnwindSafe(|| dispatch(std::env::args_os()))).unwrap_or(Exit::Wrong);
    telemetry::flush();
    exit.into()
}

fn dispatch(args: impl Iterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            if asked {
                // To the standard output; a reader that is gone has read what it wanted.
                let printed = error.print();
                let is_wrong = printed.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe);
                return if is_wrong { Exit::Wrong } else { Exit::Ok };
            }
            let text = error.render();
            let text = if io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
            telemetry::write_stderr(&text);
            return Exit::Usage;
        }
    };
    let sources = cli.settings.sources();
    let result = match cli.command {
        None | Some(Command::Run) => run::run(sources),
        Some(Command::Demo(demo)) => demo.run(&cli.settings),
        Some(Command::Check(check)) => check.run(&sources),
        Some(Command::Token(token)) => token.run(&sources),
        Some(Command::Health(health)) => health.run(&sources),
        Some(Command::Wait(wait)) => wait.run(&sources),
        Some(Command::Config) => describe(&sources).map_err(Failure::from).and_then(|text| print(&text)),
        Some(Command::Completions { shell }) => completions(shell),
    };
    match result {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            if !failure.text.is_empty() {
                print_error(&failure.text);
            }
            failure.exit
        }
    }
}

/// The exit codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Ok = 0,
    Wrong = 1,
    /// `EX_USAGE` of sysexits.h.
    Usage = 64,
    /// `EX_CONFIG` of sysexits.h.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it should: words, and the exit code.
#[derive(Debug)]
struct Failure {
    text: String,
    exit: Exit,
}

impl Failure {
    fn wrong(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), exit: Exit::Wrong }
    }

    #[cfg(not(feature = "demo"))]
    fn usage(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), exit: Exit::Usage }
    }

    fn config(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), exit: Exit::Config }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::config(error)
    }
}

impl From<app::StartError> for Failure {
    fn from(error: app::StartError) -> Self {
        if error.is_configuration() { Self::config(error) } else { Self::wrong(error) }
    }
}

fn init_telemetry(log: &Log) -> Result<(), Failure> {
    telemetry::init(log).map_err(|error| match error {
        telemetry::InitError::Filter => {
            Failure::config("`log.level` is neither a level nor a filter: give info, or info,hyper=debug")
        }
        telemetry::InitError::Thread(_) => Failure::wrong(error),
    })
}

/// What is to be told of the process's memory, once there is a log.
fn keep_to_itself(config: &Config) {
    process::tell();
    if config.secrets.core_dumps {
        process::open();
    }
}

/// For commands that answer on the standard output and want only what is important beside it.
fn init_quiet_telemetry(sources: &Sources) -> Result<(), Failure> {
    let mut log: Log = Config::section(sources, "log")?;
    if log.level == "info" {
        "warn".clone_into(&mut log.level);
    }
    if log.format == LogFormat::Auto {
        log.format = LogFormat::Text;
    }
    init_telemetry(&log)
}

/// Runs a command's future to its end. What still runs then is left behind: a look-up in a dead DNS must not hold up the
/// exit.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(app::FILE_THREADS)
        .thread_keep_alive(app::FILE_THREAD_KEEP_ALIVE)
        .build()
        .map_err(|error| Failure::wrong(format!("the runtime does not start: {error}")))?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

/// Prints text to the standard output. A reader that has gone away (`| head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    telemetry::write_stdout(text.as_bytes())
        .map_err(|error| Failure::wrong(format!("cannot write to the standard output: {error}")))
}

fn print_error(text: &str) {
    let lines = text.lines().map(|line| format!("aem-auth-proxy: {line}\n"));
    telemetry::write_stderr(&lines.collect::<String>());
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "aem-auth-proxy", &mut script);
    print(&String::from_utf8_lossy(&script))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a number with its unit, as in 30s or 500ms".to_owned())
}

/// What `--version` says after the name.
static VERSION_LINE: LazyLock<String> =
    LazyLock::new(|| format!("{} (commit {}, TLS {})", crate::VERSION, crate::COMMIT, crate::tls::PROVIDER));

const EXAMPLES: &str = "\
Examples:
  aem-auth-proxy --upstream https://author-p1-e2.adobeaemcloud.com --credentials-file service_token.json
  aem-auth-proxy demo
  aem-auth-proxy check --config proxy.toml

Exit codes: 0 done, 1 something is wrong, 64 wrong usage, 78 unusable configuration or credentials.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// A command line is for every user of the machine to read (`/proc/PID/cmdline`).
    #[test]
    fn no_flag_of_any_command_takes_a_secret() {
        let command = Cli::command();
        let all = command.get_subcommands().chain([&command]).flat_map(clap::Command::get_arguments);
        let values = all.filter(|arg| arg.get_action().takes_values());
        let mut found = 0;
        for id in values.map(|arg| arg.get_id().as_str()) {
            let key = keys::KEYS.iter().find(|key| key.name.replace('.', "_") == id);
            assert!(!key.is_some_and(|key| key.secret), "--{id}");
            let names_one =
                ["secret", "password", "key", "json", "header"].iter().any(|word| id.contains(word));
            assert!(!names_one, "--{id}");
            found += 1;
        }
        assert!(found > 15, "{found}");
    }

    #[test]
    fn every_flag_of_the_configuration_is_a_key_with_its_variable_in_the_help() {
        let command = Cli::command();
        let flags = command.get_arguments().filter(|arg| arg.get_help_heading() == Some("Configuration"));
        let mut found = 0;
        for flag in flags.filter(|flag| flag.get_id() != "config") {
            let id = flag.get_id().as_str();
            let key = keys::KEYS.iter().find(|key| key.name.replace('.', "_") == id);
            let key = key.unwrap_or_else(|| panic!("--{id} is no key"));
            let help = flag.get_help().unwrap().to_string();
            assert!(help.contains(&key.variable()), "{id}: {help}");
            if let Some(default) = key.default {
                assert!(help.contains(&format!("default {default}")), "{id}: {help}");
            }
            found += 1;
        }
        assert_eq!(found, 10);
    }
}

//! Everything wired together: the only room that knows all others.
//!
//! [`App::open`] opens the rooms in order, [`serve`] lets clients in. Commands that find no
//! running server open an [`App`] of their own and ask it the same way.

mod control;
mod hello;
mod routes;
mod status;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::auth::directory::Directory;
use crate::auth::issuer::{Fetch, Fetched, Issuer, IssuerConfig, KeySource, Mapping, Pace};
use crate::auth::present::Origins;
use crate::auth::service::{Auth, Lifetimes};
use crate::auth::token::Keys;
use crate::config::{self, Config, Secret, Secrets};
use crate::content::Content;
use crate::error::{Error, Kind, Result};
use crate::limits::Limits;
use crate::live::{self, Close, Live, Tail, TailSink};
use crate::model::change::Commit;
use crate::net::accept::{self, Door};
use crate::net::client;
use crate::net::clients::Clients;
use crate::net::http::Bodies;
use crate::net::loops::Loops;
#[cfg(target_os = "linux")]
use crate::net::ring::Ring;
use crate::schemas;
use crate::store::{self, CommitSink, Store};

pub use routes::Peer;

/// The rooms of a running server.
pub struct App {
    /// What was configured.
    pub config: Config,
    /// All bounds.
    pub limits: Arc<Limits>,
    /// Rows and the change log.
    pub store: Store,
    /// Users, sessions and tokens.
    pub auth: Arc<Auth>,
    /// The stream.
    pub live: Arc<Live>,
    /// The commands over records.
    pub content: Content,
    /// The folder and the schema API.
    pub schemas: Arc<schemas::Service>,
    /// Who is connected.
    pub clients: Arc<Clients>,
    origins: Origins,
    bodies: Bodies,
    backups: Arc<control::Backups>,
    /// Where what takes long is done.
    pool: Handle,
    /// Turns true when the server stops.
    draining: watch::Sender<bool>,
}

/// Hears of commits from whoever writes them: first who may what, then the stream.
struct Sink {
    directory: Arc<Directory>,
    tail: TailSink,
}

impl CommitSink for Sink {
    fn committed(&mut self, commits: &[Arc<Commit>]) {
        for commit in commits {
            self.directory.apply(commit);
        }
        self.tail.committed(commits);
    }

    fn answered(&mut self, idle: bool) {
        self.tail.answered(idle);
    }
}

impl App {
    /// Opens everything but the doors: data directory, lock and store, schemas, users, stream.
    pub async fn open(mut config: Config) -> Result<Arc<App>> {
        let limits = Arc::new(config.limits.clone());
        let origins = match &config.allowed_origins {
            None => Origins::default(),
            Some(given) => {
                let list = given.text.split(',').filter(|origin| !origin.trim().is_empty());
                Origins::new(list).map_err(|why| given.wrong(why))?
            }
        };
        let issuer = issuer(&config).await?;
        let (mapping, issuer) = issuer.unzip();
        let directory = Arc::new(Directory::new(mapping));
        let (tail_sink, tail): (TailSink, Tail) = live::tail::channel(limits.tail_bytes);
        let store = Store::open(
            store::Options {
                log_age: limits.log_age,
                log_bytes: limits.log_bytes,
                readers: limits.readers,
                limits: config.limits.clone(),
                ..store::Options::new(&config.data)
            },
            Box::new(Sink { directory: directory.clone(), tail: tail_sink }),
        )?;
        let schemas = schemas::Service::open(store.clone(), &config.schemas).await?;
        schemas.asks(directory.clone());
        // Under the store's lock from here on.
        let key = match &config.secrets.app_key {
            Some(key) => key.clone(),
            None => {
                let key = Secret::random(48)?;
                Secrets::keep(&config.data, "APP_KEY", &key)?;
                config.secrets.app_key.insert(key).clone()
            }
        };
        let previous = config.secrets.app_key_previous.as_ref();
        let keys = Keys::new(
            key.reveal().as_bytes(),
            previous.map(|previous| previous.reveal().as_bytes()),
        )
        .map_err(Error::bad)?;
        let lifetimes = Lifetimes::new(config.refresh_tokens);
        let auth = Auth::new(store.clone(), directory.clone(), keys, lifetimes, issuer)?;
        let auth = Arc::new(auth);
        auth.load().await?;
        let live = Live::start(tail, Arc::new(store.clone()), directory, limits.clone())?;
        if config.io_uring {
            write_together(&live);
        }
        Ok(Arc::new(App {
            content: Content::new(store.clone(), limits.clone()).with_auth(auth.clone()),
            clients: Clients::new(&limits, limits.event_loops),
            pool: Handle::current(),
            bodies: Bodies::new(&limits),
            backups: Arc::default(),
            draining: watch::channel(false).0,
            config,
            limits,
            store,
            schemas,
            auth,
            live,
            origins,
        }))
    }

    /// Ends the sockets, lets what is under way finish, within the drain time. Takes those out of
    /// `accepting` that have ended.
    async fn drain(&self, accepting: &mut Vec<oneshot::Receiver<()>>) {
        self.draining.send_replace(true);
        self.live.close_all(Close::new(1001, "the server is shutting down"));
        let gone = async {
            // Who was accepted last may not be counted before.
            while let Some(door) = accepting.last_mut() {
                let _ = door.await;
                accepting.pop();
            }
            self.clients.all_gone().await;
        };
        if tokio::time::timeout(self.limits.drain_time, gone).await.is_err() {
            tracing::warn!("{} connections did not end in time", self.clients.count());
        }
    }
}

/// Has the live stream written by a ring, where the kernel gives one.
#[cfg(target_os = "linux")]
fn write_together(live: &Live) {
    match Ring::open() {
        Ok(ring) => live.carry_with(Box::new(ring)),
        Err(error) => tracing::info!("no io_uring ({error}): sockets are written one by one"),
    }
}

#[cfg(not(target_os = "linux"))]
fn write_together(_: &Live) {}

/// Gets the outside issuer's keys.
struct Net;

impl Fetch for Net {
    fn get<'a>(&'a self, url: &'a str) -> Fetched<'a> {
        let bounds = client::Bounds { bytes: 1 << 20, time: std::time::Duration::from_secs(5) };
        Box::pin(async move {
            let body = client::get(url, bounds).await.map_err(|error| error.to_string())?;
            Ok(body.to_vec())
        })
    }
}

async fn issuer(config: &Config) -> Result<Option<(Mapping, Issuer)>> {
    let Some(given) = &config.issuer else { return Ok(None) };
    let wrong = |why: String| Error::bad(format!("issuer: {why}"));
    let told = IssuerConfig {
        issuer: given.issuer.clone(),
        audience: given.audience.clone(),
        algorithm: given.algorithm.clone(),
        keys: match given.keys.clone() {
            config::IssuerKeys::Pem(path) => KeySource::Pem(path),
            config::IssuerKeys::JwksFile(path) => KeySource::JwksFile(path),
            config::IssuerKeys::JwksUrl(url) => KeySource::JwksUrl(url),
        },
        roles_claim: given.roles_claim.clone(),
        roles: given.roles.iter().cloned().collect(),
    };
    let mapping = Mapping::new(&told).map_err(wrong)?;
    let issuer = Issuer::open(&told, Arc::new(Net), Pace::default()).await.map_err(wrong)?;
    Ok(Some((mapping, issuer)))
}

/// Files beside those of clients: the store's, the log, the folder's watch.
const OWN_FILES: u64 = 128;
/// And those of an event loop: four of its own, the doors it may listen at, its connection to the
/// store, and what it looks at to tell whether the disk is slow.
const LOOP_FILES: u64 = 10;

/// Raises this process's bound on open files as far as it goes, and lowers the bound on
/// connections to what that leaves: a server out of descriptors cannot even say that it is.
fn bound_by_files(limits: &mut Limits) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit { current: most, maximum: most };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("the bound on open files stays: {error}");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return };
    let own = OWN_FILES + LOOP_FILES * limits.event_loops as u64;
    let room = usize::try_from(files.saturating_sub(own)).unwrap_or(usize::MAX).max(1);
    if room < limits.connections {
        tracing::info!(
            "at most {room} connections, not {}: this process may open {files} files (ulimit -n)",
            limits.connections
        );
        limits.connections = room;
    }
}

/// Runs a server until it is told to stop (SIGTERM, Ctrl-C), and says where it listens.
pub async fn serve(mut config: Config) -> Result<()> {
    bound_by_files(&mut config.limits);
    let mut stop = Stop::new()?;
    // Before anything is made or changed: a second server on the port should leave no trace.
    let address = SocketAddr::new(config.host, config.port);
    let listener = listen(address).map_err(|error| cannot_listen(address, &error))?;
    let address = listener.local_addr().map_err(Error::internal)?;
    let app = App::open(config).await?;
    let first_admin = hello::first_admin(&app).await?;
    let mut owner = owner_door(&app.config.data)?;
    let inner = owner.as_mut().and_then(|owner| owner.listener.take()).map(Door::Owner);
    let _watch = app.schemas.watch();
    let mut accepting = Vec::new();
    let loops = Loops::start(app.limits.event_loops).map_err(Error::internal)?;
    for door in [Some(Door::Tcp(listener)), inner].into_iter().flatten() {
        accepting.push(accept::accept(
            door,
            loops.handles().clone(),
            app.clone(),
            app.clients.clone(),
            app.limits.clone(),
            app.draining.subscribe(),
        ));
    }
    let catalog = app.store.catalog();
    hello::Welcome { address, config: &app.config, catalog: &catalog, first_admin }.print();
    stop.asked().await;
    tracing::info!("stopping: finishing what is under way");
    tokio::select! {
        biased;
        // First: it also says that nobody is let in any more.
        () = app.drain(&mut accepting) => {}
        // Asked twice: whoever asks will not wait.
        () = stop.asked() => tracing::warn!("stopping at once"),
    }
    for accepting in accepting {
        let _ = accepting.await;
    }
    loops.end().await;
    Ok(())
}

/// Connections that wait to be accepted; the system may allow fewer. When a server comes back its
/// clients do so together, and who finds no room tries again a second later.
const BACKLOG: u32 = 4_096;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port that a server has just left may be taken at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Error {
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "something else listens there; stop it, or choose another with --port (APP_PORT)"
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; see --host (APP_HOST)"
        }
        std::io::ErrorKind::PermissionDenied => {
            "this user may not; ports below 1024 need more rights"
        }
        _ => "see --host and --port",
    };
    Error::new(Kind::Unavailable, format!("cannot listen on {address}: {error}: {remedy}"))
}

/// Where the owner's commands reach a running server.
pub fn owner_path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// The owner's socket, whose file goes when the server stops.
struct OwnerDoor {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Drop for OwnerDoor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the owner's socket, readable by the owner alone. The caller holds the data directory's
/// lock, so that a file found there is a dead server's. A path too long for a socket costs the
/// socket, not the server.
fn owner_door(data: &Path) -> Result<Option<OwnerDoor>> {
    let path = owner_path(data);
    let fault = |error: std::io::Error| {
        Error::new(Kind::Unavailable, format!("cannot make {}: {error}", path.display()))
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    // Made where nobody else can look, and moved once nobody else can open it.
    let hidden = data.join(".control");
    let _ = std::fs::remove_dir_all(&hidden);
    std::fs::DirBuilder::new().mode(0o700).create(&hidden).map_err(fault)?;
    let made = hidden.join("sock");
    let listener = match UnixListener::bind(&made) {
        Ok(listener) => listener,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            tracing::warn!(
                "commands cannot reach this server: {} is too long a path for a socket",
                path.display()
            );
            let _ = std::fs::remove_dir(&hidden);
            return Ok(None);
        }
        Err(error) => return Err(fault(error)),
    };
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600)).map_err(fault)?;
    listener.set_nonblocking(true).map_err(fault)?;
    std::fs::rename(&made, &path).map_err(fault)?;
    let _ = std::fs::remove_dir(&hidden);
    Ok(Some(OwnerDoor { path, listener: Some(listener) }))
}

/// SIGTERM and Ctrl-C, both caught from `new` on.
struct Stop {
    term: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        Ok(Stop {
            term: signal(SignalKind::terminate()).map_err(Error::internal)?,
            interrupt: signal(SignalKind::interrupt()).map_err(Error::internal)?,
        })
    }

    /// Resolves when the next one comes.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

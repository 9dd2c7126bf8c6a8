//! Tells when files have changed on disk.
//!
//! What a file is, is its stamp: which file, how large, when changed. The system's events only say that it is time to look;
//! they are missing on NFS and some mounts of containers, and come in a dozen orders elsewhere, so nothing is read from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

/// Looks after some files.
pub struct Watch {
    /// The files, and what they were when they were last told of.
    known: Stamps,
    poll: Duration,
    ears: Option<Arc<Mutex<Ears>>>,
    heard: Arc<Notify>,
    /// A look that has not come back: [`Watch::changed`] was dropped over it. The next call takes it up, so that a dead file
    /// system holds one thread and not one for each call.
    looking: Option<JoinHandle<Stamps>>,
    looked_at: Option<Instant>,
    look_by: Instant,
    unrest: Option<Unrest>,
}

/// A change that is not told yet, since it may not be over.
struct Unrest {
    since: Instant,
    last: Stamps,
    still_since: Instant,
}

type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

impl Watch {
    /// Looks after `files`, with the system's events where it gives them and by looking every `poll` in any case (NFS and
    /// some mounts of containers give no events).
    ///
    /// What the files are now counts as known, so a caller that reads them should do it after this.
    pub fn new(files: Vec<PathBuf>, poll: Duration) -> Self {
        let heard = Arc::new(Notify::new());
        let ears = Ears::open(Arc::clone(&heard)).inspect_err(
            |error| warn!(%error, ?poll, "No events of changed files, looking now and then instead"),
        );
        Self::with(files, poll, ears.ok(), heard)
    }

    fn with(files: Vec<PathBuf>, poll: Duration, ears: Option<Ears>, heard: Arc<Notify>) -> Self {
        Self {
            known: files.into_iter().map(stamped).collect(),
            poll,
            ears: ears.map(|ears| Arc::new(Mutex::new(ears))),
            heard,
            looking: None,
            looked_at: None,
            look_by: Instant::now(),
            unrest: None,
        }
    }

    /// Other files from now on: the credentials may name others. What they are now counts as known. Of a file that was looked
    /// after before, a change that has not been told yet will be.
    ///
    /// The new ones are looked at here and now: the caller has just read them, so their file system answers.
    pub fn follow(&mut self, files: Vec<PathBuf>) {
        let known = |file| match self.known.get(&file) {
            Some(stamp) => (file, *stamp),
            None => stamped(file),
        };
        self.known = files.into_iter().map(known).collect();
        // Both are of the files of before.
        self.looking = None;
        self.unrest = None;
        self.look_by = Instant::now();
    }

    /// Waits until a file is not what it was when it was last looked at (since `new`, `follow` or the last return), and has
    /// stopped changing. May tell of a file whose content is the same: it was touched, or written anew.
    ///
    /// Cancel-safe: dropping the future loses no change.
    pub async fn changed(&mut self) {
        loop {
            self.time_to_look().await;
            if let Some(now) = self.look().await
                && self.is_over(now)
            {
                return;
            }
        }
    }

    /// Ready at an event, or when none has come for long. Other files in the same directory may change all the time: they
    /// cause one look in each [`SETTLE`].
    async fn time_to_look(&self) {
        if self.looking.is_some() {
            return;
        }
        // This first, and the event last: an event that was taken must lead to a look, though this be dropped.
        if let Some(looked_at) = self.looked_at {
            sleep_until(looked_at + SETTLE).await;
        }
        tokio::select! {
            () = self.heard.notified() => {}
            () = sleep_until(self.look_by) => {}
        }
    }

    /// What the files are now. On a thread for waiting: where a file system is dead, even this does not return, and the
    /// runtime's thread has tokens to refresh.
    async fn look(&mut self) -> Option<Stamps> {
        let looking = self.looking.get_or_insert_with(|| {
            let files: Vec<PathBuf> = self.known.keys().cloned().collect();
            let ears = self.ears.clone();
            spawn_blocking(move || {
                // First, so that what changes after the look is heard.
                if let Some(ears) = ears {
                    ears.lock().unwrap_or_else(PoisonError::into_inner).listen(&files);
                }
                files.into_iter().map(stamped).collect()
            })
        });
        let looked = looking.await;
        self.looking = None;
        let now = Instant::now();
        self.looked_at = Some(now);
        self.look_by = now + self.poll;
        if let Err(error) = &looked
            && error.is_panic()
        {
            warn!("Cannot listen to changes of files, looking now and then instead");
            // notify panics when its thread has died, and once more when it is dropped.
            std::mem::forget(self.ears.take());
        }
        looked.ok()
    }

    /// Whether there is a change, and it is over. If so, it is known from now on.
    fn is_over(&mut self, now: Stamps) -> bool {
        if now == self.known {
            self.unrest = None;
            return false;
        }
        let looked_at = self.looked_at.unwrap_or_else(Instant::now);
        let blank = now.iter().any(|(file, stamp)| is_blank(stamp) && self.known.get(file) != Some(stamp));
        let wait = if blank { BLANK_WAIT } else { SETTLE };
        let unrest = match self.unrest.take() {
            Some(unrest) if unrest.last == now => unrest,
            Some(unrest) => Unrest { last: now, still_since: looked_at, ..unrest },
            None => Unrest { since: looked_at, last: now, still_since: looked_at },
        };
        if looked_at - unrest.still_since >= wait || looked_at - unrest.since >= UNREST_MAX {
            self.known = unrest.last;
            return true;
        }
        self.unrest = Some(unrest);
        self.look_by = looked_at + SETTLE;
        false
    }
}

/// Which file lies at a path, links followed, and when it was changed; of one that cannot be looked at, nothing. `ctime` is
/// the one time that programs cannot set, and tells of a change of permissions, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    id: Id,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// Device and inode.
type Id = (u64, u64);

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok()?;
        Some(Self {
            id: id(&metadata),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn stamped(file: PathBuf) -> (PathBuf, Option<Stamp>) {
    let stamp = Stamp::of(&file);
    (file, stamp)
}

fn id(metadata: &fs::Metadata) -> Id {
    (metadata.dev(), metadata.ino())
}

/// Whether the file is missing or empty, as it is in the middle of being replaced or written.
fn is_blank(stamp: &Option<Stamp>) -> bool {
    stamp.is_none_or(|stamp| stamp.size == 0)
}

/// Hears of changes in the places that files depend on.
struct Ears {
    watcher: RecommendedWatcher,
    /// What is listened to, by paths without links: two paths to one directory would share one watch of inotify, and giving
    /// up one would give up both.
    places: BTreeMap<PathBuf, Id>,
    told: bool,
}

impl Ears {
    /// `heard` is told of everything but reading.
    fn open(heard: Arc<Notify>) -> notify::Result<Self> {
        let handler = move |event| {
            if !is_reading(&event) {
                heard.notify_one();
            }
        };
        // Links on the way are found here, one by one.
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(handler, config)?;
        // Where the system gives no thread, notify says nothing of it and panics when it is used or dropped. This question it
        // answers.
        if let Err(error) = watcher.configure(config) {
            std::mem::forget(watcher);
            return Err(error);
        }
        Ok(Self { watcher, places: BTreeMap::new(), told: false })
    }

    /// Listens to the places of `files` and to no others.
    fn listen(&mut self, files: &[PathBuf]) {
        let mut wanted = places(files);
        for _ in 0..LISTEN_MAX {
            self.listen_at(&wanted);
            // A directory may have been made, or a link turned, before it was listened to.
            let found = places(files);
            if found == wanted {
                return;
            }
            wanted = found;
        }
    }

    fn listen_at(&mut self, wanted: &BTreeMap<PathBuf, Id>) {
        // What lies at a path may be another file than the one that is listened to.
        self.places.retain(|place, id| {
            let stays = wanted.get(place) == Some(id);
            if !stays {
                // An error says that notify has given it up before: the place is gone.
                drop(self.watcher.unwatch(place));
            }
            stays
        });
        for (place, id) in wanted {
            if self.places.contains_key(place) && !FORGETS {
                continue;
            }
            match self.watcher.watch(place, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.places.insert(place.clone(), *id)),
                Err(error) => self.tell(place, &error),
            }
        }
    }

    /// Once: looking now and then goes on, and would say the same each time.
    fn tell(&mut self, place: &Path, error: &notify::Error) {
        let gone = match &error.kind {
            notify::ErrorKind::PathNotFound => true,
            notify::ErrorKind::Io(error) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        };
        if !gone && !self.told {
            self.told = true;
            debug!(%error, place = %place.display(), "No events of changes here, looking now and then instead");
        }
    }
}

/// Whether nothing was changed, only read: the caller reads the files, too.
fn is_reading(event: &notify::Result<Event>) -> bool {
    match event {
        Ok(Event { kind: EventKind::Access(kind), .. }) => *kind != AccessKind::Close(AccessMode::Write),
        _ => false,
    }
}

/// The places at which something happens when one of `files` becomes another: see [`add_places`].
fn places(files: &[PathBuf]) -> BTreeMap<PathBuf, Id> {
    let mut places = BTreeSet::new();
    for file in files {
        add_places(file, &mut places);
    }
    let with_id = |place: PathBuf| fs::metadata(&place).ok().map(|metadata| (place, id(&metadata)));
    places.into_iter().filter_map(with_id).collect()
}

/// The directory of each link on the way to `file`, which may be turned (Kubernetes turns `..data`); the directory of the file
/// itself, or the last that there is on the way to it; and the file, which may be written to by a path that is none of these:
/// in a container, where it alone was mounted, that is the only event.
fn add_places(file: &Path, places: &mut BTreeSet<PathBuf>) {
    let Ok(mut left) = std::path::absolute(file) else { return };
    let (mut at, mut links) = (PathBuf::new(), 0);
    loop {
        let mut parts = left.components();
        let Some(part) = parts.next() else { break };
        let rest = parts.as_path();
        match part {
            Component::Normal(name) => {
                let next = at.join(name);
                match next.symlink_metadata() {
                    Ok(metadata) if metadata.is_symlink() => {
                        links += 1;
                        let target = fs::read_link(&next);
                        // Links in the root directory are the system's (`/var` on macOS); to listen there is to hear of much.
                        if at.parent().is_some() {
                            places.insert(at.clone());
                        }
                        let Ok(target) = target else { return };
                        if links > LINKS_MAX {
                            return;
                        }
                        left = target.join(rest);
                        continue;
                    }
                    Ok(_) => at = next,
                    Err(_) => {
                        places.insert(at);
                        return;
                    }
                }
            }
            // There are no links in `at`, so the directory above is its parent.
            Component::ParentDir => drop(at.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir => at.push(part),
        }
        left = rest.to_owned();
    }
    places.extend(at.parent().map(Path::to_owned));
    places.insert(at);
}

/// How long files stay as they are before that is told: an editor or a script writes within it. Also the time between two
/// looks, and longer than a tick of any clock of file systems, so that what is written after the last look has another stamp.
const SETTLE: Duration = Duration::from_millis(100);
/// The same where a file is missing or empty: most likely it is just being replaced.
const BLANK_WAIT: Duration = Duration::from_secs(1);
/// Files that never stay as they are get told of all the same.
const UNREST_MAX: Duration = Duration::from_secs(10);
/// How often the places are looked for anew while they move. If they go on, the next look is not far.
const LISTEN_MAX: usize = 5;
/// As many links as Linux follows.
const LINKS_MAX: usize = 40;
/// inotify listens to a file, not to a path, and notify gives up what was moved away though it may come back. To ask again
/// costs nothing there. FSEvents goes by paths, and would start all over.
const FORGETS: bool = cfg!(target_os = "linux");

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions, Permissions},
        io::Write,
        os::unix::fs::{PermissionsExt, symlink},
        pin::pin,
        task::{Context, Waker},
        thread,
        time::{SystemTime, UNIX_EPOCH},
    };

    use tempfile::TempDir;
    use tokio::time::{advance, timeout};

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Mode {
        /// Nothing but an event leads to a look within the time of a test.
        Events,
        Polling,
    }

    const LONG: Duration = Duration::from_secs(20);
    const NEVER: Duration = Duration::from_secs(100 * 3600);
    const OFTEN: Duration = Duration::from_millis(20);

    fn watch(mode: Mode, files: Vec<PathBuf>) -> Watch {
        match mode {
            Mode::Events => {
                let watch = Watch::new(files, NEVER);
                assert!(watch.ears.is_some(), "no inotify here?");
                watch
            }
            Mode::Polling => Watch::with(files, OFTEN, None, Arc::default()),
        }
    }

    /// Has it look once: from then on it listens.
    async fn listening(watch: &mut Watch) {
        let now = watch.look().await.unwrap();
        assert_eq!(now, watch.known);
    }

    #[track_caller]
    fn told(watch: &mut Watch) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let mode = if watch.ears.is_some() { Mode::Events } else { Mode::Polling };
        async move {
            assert!(timeout(LONG, watch.changed()).await.is_ok(), "{mode:?}: not told at {caller}");
        }
    }

    /// `prepare` gives the file to look after; each of `changes` is told, in both modes, when it is over.
    async fn check(prepare: fn(&Path) -> PathBuf, changes: &[fn(&Path)]) {
        assert!(!changes.is_empty());
        let check = async |mode| {
            let dir = TempDir::new().unwrap();
            let mut watch = watch(mode, vec![prepare(dir.path())]);
            listening(&mut watch).await;
            for (number, change) in changes.iter().enumerate() {
                change(dir.path());
                let told = timeout(LONG, watch.changed()).await;
                assert!(told.is_ok(), "{mode:?}: change {number} was not told");
                assert_eq!(watch.look().await.unwrap(), watch.known, "{mode:?}: told too early");
            }
        };
        tokio::join!(check(Mode::Events), check(Mode::Polling));
    }

    fn write(file: impl AsRef<Path>, content: &str) {
        fs::write(file, content).unwrap();
    }

    fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) {
        fs::rename(from, to).unwrap();
    }

    /// The usual file, old enough that the next write is at another time by any clock.
    fn file(dir: &Path) -> PathBuf {
        let path = dir.join("token.json");
        write(&path, "old");
        set_modified(&path, UNIX_EPOCH + Duration::from_secs(1000));
        path
    }

    fn set_modified(path: &Path, at: SystemTime) {
        File::options().append(true).open(path).unwrap().set_modified(at).unwrap();
    }

    #[tokio::test]
    async fn a_write_in_place_is_told() {
        check(
            file,
            &[|dir| write(dir.join("token.json"), "newer"), |dir| write(dir.join("token.json"), "newest")],
        )
        .await;
    }

    #[tokio::test]
    async fn a_write_of_the_same_size_in_the_same_second_is_told() {
        let change = |dir: &Path| {
            let path = dir.join("token.json");
            write(&path, "new");
            set_modified(&path, UNIX_EPOCH + Duration::new(1000, 1));
        };
        check(file, &[change]).await;
    }

    #[tokio::test]
    async fn a_write_that_hides_its_time_is_told() {
        let change = |dir: &Path| {
            let path = dir.join("token.json");
            write(&path, "new");
            set_modified(&path, UNIX_EPOCH + Duration::from_secs(1000));
        };
        check(file, &[change]).await;
    }

    #[tokio::test]
    async fn a_file_renamed_over_it_is_told_each_time() {
        let change = |dir: &Path| {
            write(dir.join(".new"), "new");
            rename(dir.join(".new"), dir.join("token.json"));
        };
        check(file, &[change, change, change]).await;
    }

    #[tokio::test]
    async fn a_backup_made_by_renaming_is_told() {
        let change = |dir: &Path| {
            rename(dir.join("token.json"), dir.join("token.json~"));
            write(dir.join("token.json"), "new");
        };
        check(file, &[change, change]).await;
    }

    #[tokio::test]
    async fn a_turn_of_a_kubernetes_volume_is_told_each_time() {
        fn volume(dir: &Path) -> PathBuf {
            fs::create_dir(dir.join("..2026_1")).unwrap();
            write(dir.join("..2026_1/token.json"), "1");
            symlink("..2026_1", dir.join("..data")).unwrap();
            symlink("..data/token.json", dir.join("token.json")).unwrap();
            dir.join("token.json")
        }
        fn turn(dir: &Path, old: &str, new: &str) {
            fs::create_dir(dir.join(new)).unwrap();
            write(dir.join(new).join("token.json"), new);
            symlink(new, dir.join("..data_tmp")).unwrap();
            rename(dir.join("..data_tmp"), dir.join("..data"));
            fs::remove_dir_all(dir.join(old)).unwrap();
        }
        let second = |dir: &Path| turn(dir, "..2026_1", "..2026_2");
        let third = |dir: &Path| turn(dir, "..2026_2", "..2026_3");
        // What is linked now is listened to, too.
        let edit = |dir: &Path| write(dir.join("..2026_3/token.json"), "edited");
        check(volume, &[second, third, edit]).await;
    }

    #[tokio::test]
    async fn an_edit_of_a_link_s_target_elsewhere_is_told() {
        fn linked(dir: &Path) -> PathBuf {
            fs::create_dir_all(dir.join("elsewhere/deep")).unwrap();
            fs::create_dir(dir.join("here")).unwrap();
            write(dir.join("elsewhere/deep/a"), "a");
            symlink("../elsewhere/middle", dir.join("here/token.json")).unwrap();
            symlink(dir.join("elsewhere/deep/a"), dir.join("elsewhere/middle")).unwrap();
            dir.join("here/token.json")
        }
        let edit = |dir: &Path| write(dir.join("elsewhere/deep/a"), "other");
        let replace = |dir: &Path| {
            write(dir.join("elsewhere/deep/b"), "b");
            rename(dir.join("elsewhere/deep/b"), dir.join("elsewhere/deep/a"));
        };
        let turn = |dir: &Path| {
            write(dir.join("elsewhere/c"), "c");
            symlink("c", dir.join("elsewhere/new")).unwrap();
            rename(dir.join("elsewhere/new"), dir.join("elsewhere/middle"));
        };
        check(linked, &[edit, replace, turn, |dir| write(dir.join("elsewhere/c"), "other")]).await;
    }

    /// In a container into which the one file was mounted, its directory hears nothing either.
    #[tokio::test]
    async fn a_write_by_another_path_is_told() {
        fn twice(dir: &Path) -> PathBuf {
            fs::create_dir(dir.join("other")).unwrap();
            write(dir.join("other/name"), "old");
            fs::hard_link(dir.join("other/name"), dir.join("token.json")).unwrap();
            dir.join("token.json")
        }
        check(twice, &[|dir| write(dir.join("other/name"), "newer")]).await;
    }

    #[tokio::test]
    async fn a_deletion_and_a_return_are_told() {
        let remove = |dir: &Path| fs::remove_file(dir.join("token.json")).unwrap();
        let create = |dir: &Path| write(dir.join("token.json"), "new");
        check(file, &[remove, create, remove, create]).await;
    }

    #[tokio::test]
    async fn a_directory_that_comes_later_is_told_with_its_file() {
        fn nowhere(dir: &Path) -> PathBuf {
            dir.join("not/there/token.json")
        }
        let create = |dir: &Path| {
            fs::create_dir_all(dir.join("not/there")).unwrap();
            write(dir.join("not/there/token.json"), "new");
        };
        let remove = |dir: &Path| fs::remove_dir_all(dir.join("not")).unwrap();
        check(nowhere, &[create, remove, create]).await;
    }

    #[tokio::test]
    async fn a_directory_made_in_steps_is_listened_to() {
        let dir = TempDir::new().unwrap();
        let mut watch = watch(Mode::Events, vec![dir.path().join("not/there/token.json")]);
        listening(&mut watch).await;
        for step in ["not", "not/there"] {
            fs::create_dir(dir.path().join(step)).unwrap();
            watch.time_to_look().await;
            listening(&mut watch).await;
        }
        write(dir.path().join("not/there/token.json"), "new");
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn a_directory_that_goes_away_and_returns_is_told() {
        fn inside(dir: &Path) -> PathBuf {
            fs::create_dir(dir.join("in")).unwrap();
            file(&dir.join("in"))
        }
        let away = |dir: &Path| rename(dir.join("in"), dir.join("away"));
        let back = |dir: &Path| rename(dir.join("away"), dir.join("in"));
        let edit = |dir: &Path| {
            write(dir.join("in/new"), "new");
            rename(dir.join("in/new"), dir.join("in/token.json"));
        };
        check(inside, &[away, back, edit]).await;
    }

    /// notify gives up a directory that it sees going.
    #[tokio::test]
    async fn a_directory_that_was_away_for_a_moment_is_listened_to() {
        let dir = TempDir::new().unwrap();
        let (inside, away) = (dir.path().join("in"), dir.path().join("away"));
        fs::create_dir(&inside).unwrap();
        let target = file(&inside);
        symlink(&target, dir.path().join("link")).unwrap();
        let mut watch = watch(Mode::Events, vec![dir.path().join("link")]);
        listening(&mut watch).await;
        rename(&inside, &away);
        rename(&away, &inside);
        watch.time_to_look().await;
        listening(&mut watch).await;
        write(inside.join("new"), "new");
        rename(inside.join("new"), &target);
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn leave_to_read_is_told() {
        fn locked(dir: &Path) -> PathBuf {
            let path = file(dir);
            fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
            path
        }
        let unlock =
            |dir: &Path| fs::set_permissions(dir.join("token.json"), Permissions::from_mode(0o600)).unwrap();
        check(locked, &[unlock]).await;
    }

    #[tokio::test]
    async fn a_change_before_the_first_call_is_told() {
        for mode in [Mode::Events, Mode::Polling] {
            let dir = TempDir::new().unwrap();
            let path = file(dir.path());
            let mut watch = watch(mode, vec![path.clone()]);
            write(&path, "newer");
            told(&mut watch).await;
        }
    }

    /// Whatever `write` does on a thread of its own, `last` is in the file when it is told for the last time.
    async fn check_last(write: fn(&Path), last: &str) {
        for mode in [Mode::Events, Mode::Polling] {
            let dir = TempDir::new().unwrap();
            let path = file(dir.path());
            let mut watch = watch(mode, vec![path.clone()]);
            listening(&mut watch).await;
            let writer = thread::spawn({
                let path = path.clone();
                move || write(&path)
            });
            let told = timeout(LONG, async {
                watch.changed().await;
                while fs::read_to_string(&path).unwrap() != last {
                    watch.changed().await;
                }
            });
            assert!(told.await.is_ok(), "{mode:?}: the last write was not told");
            writer.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_write_in_pieces_is_told_at_its_end() {
        let pieces = |path: &Path| {
            let mut file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
            for piece in ["{", "\"a\"", ":", "1", "}"] {
                file.write_all(piece.as_bytes()).unwrap();
                thread::sleep(SETTLE / 4);
            }
        };
        check_last(pieces, "{\"a\":1}").await;
    }

    #[tokio::test]
    async fn a_burst_of_writes_is_told_at_its_end() {
        let burst = |path: &Path| (0..2000).for_each(|number| write(path, &format!("number {number}")));
        check_last(burst, "number 1999").await;
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_loses_no_change() {
        for mode in [Mode::Events, Mode::Polling] {
            let dir = TempDir::new().unwrap();
            let path = file(dir.path());
            let mut watch = watch(mode, vec![path.clone()]);
            listening(&mut watch).await;
            write(&path, "newer");
            // Dropped wherever it waits, in the middle of looks and between them.
            timeout(LONG, async {
                while timeout(Duration::from_micros(300), watch.changed()).await.is_err() {}
            })
            .await
            .unwrap_or_else(|_| panic!("{mode:?}: not told"));
        }
    }

    #[tokio::test]
    async fn a_look_that_was_left_is_taken_up() {
        let dir = TempDir::new().unwrap();
        let path = file(dir.path());
        let mut watch = watch(Mode::Events, vec![path.clone()]);
        let ears = watch.ears.clone().unwrap();
        {
            // As if a file system did not answer.
            let _dead = ears.lock().unwrap();
            let looked = pin!(watch.look()).poll(&mut Context::from_waker(Waker::noop()));
            assert!(looked.is_pending());
        }
        write(&path, "newer");
        // Nothing leads to another look.
        watch.look_by = Instant::now() + NEVER;
        watch.heard = Arc::default();
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn other_files_are_looked_after_from_then_on() {
        for mode in [Mode::Events, Mode::Polling] {
            let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
            let (first, second) = (file(dir.path()), file(other.path()));
            let mut watch = watch(mode, vec![first.clone()]);
            listening(&mut watch).await;
            write(&second, "changed before");
            watch.follow(vec![second.clone()]);
            listening(&mut watch).await;
            write(&first, "of no interest");
            assert_eq!(watch.look().await.unwrap(), watch.known);
            write(&second, "newer");
            told(&mut watch).await;

            watch.follow(vec![first.clone(), second]);
            listening(&mut watch).await;
            write(&first, "of interest again");
            told(&mut watch).await;
        }
    }

    #[tokio::test]
    async fn a_change_that_was_not_told_survives_other_files() {
        let dir = TempDir::new().unwrap();
        let path = file(dir.path());
        let mut watch = watch(Mode::Events, vec![path.clone()]);
        listening(&mut watch).await;
        write(&path, "newer");
        watch.follow(vec![path, dir.path().join("other")]);
        told(&mut watch).await;
    }

    #[tokio::test]
    async fn a_file_of_several_is_told() {
        for mode in [Mode::Events, Mode::Polling] {
            let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
            let files = vec![file(dir.path()), dir.path().join("absent"), file(other.path())];
            let mut watch = watch(mode, files.clone());
            listening(&mut watch).await;
            write(&files[2], "newer");
            told(&mut watch).await;
        }
    }

    #[test]
    fn reading_is_no_reason_to_look() {
        let event = |kind| Ok(Event::new(kind));
        assert!(is_reading(&event(EventKind::Access(AccessKind::Open(AccessMode::Any)))));
        assert!(is_reading(&event(EventKind::Access(AccessKind::Close(AccessMode::Read)))));
        assert!(!is_reading(&event(EventKind::Access(AccessKind::Close(AccessMode::Write)))));
        assert!(!is_reading(&event(EventKind::Other)));
        assert!(!is_reading(&Err(notify::Error::generic("too many"))));
    }

    #[tokio::test]
    async fn the_thread_ends_with_the_watch() {
        let dir = TempDir::new().unwrap();
        let mut watch = watch(Mode::Events, vec![file(dir.path())]);
        listening(&mut watch).await;
        // notify's thread has the other one.
        let heard = Arc::downgrade(&watch.heard);
        drop(watch);
        timeout(LONG, async {
            while heard.upgrade().is_some() {
                tokio::time::sleep(OFTEN).await;
            }
        })
        .await
        .unwrap();
    }

    #[test]
    fn places_are_where_links_lie_and_where_the_file_is() {
        let dir = TempDir::new().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        for name in ["a", "b", "c", "d"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        write(dir.join("d/file"), "");
        symlink("../b/dir", dir.join("a/link")).unwrap();
        symlink(dir.join("c/../d"), dir.join("b/dir")).unwrap();
        let found = |file: &str| -> Vec<_> {
            let found = places(&[dir.join(file)]).into_keys();
            found.map(|place| place.strip_prefix(&dir).unwrap().display().to_string()).collect()
        };
        assert_eq!(found("a/link/file"), ["a", "b", "d", "d/file"]);
        assert_eq!(found("c/./missing/deep"), ["c"]);
        symlink("round", dir.join("c/round")).unwrap();
        assert_eq!(found("c/round"), ["c"]);
    }

    fn stamps_at(time: i64, size: u64) -> Stamps {
        let stamp = Stamp { id: (1, 1), size, mtime: (time, 0), ctime: (time, 0) };
        BTreeMap::from([(PathBuf::from("token.json"), Some(stamp))])
    }

    /// Looks as often as the watch does, and gives how long it took until it was told.
    async fn waits(looks: impl Fn(i64) -> Stamps) -> Duration {
        let mut watch = Watch::with(Vec::new(), OFTEN, None, Arc::default());
        let start = Instant::now();
        watch.known = looks(0);
        for number in 1.. {
            watch.looked_at = Some(Instant::now());
            if watch.is_over(looks(number)) {
                break;
            }
            advance(SETTLE).await;
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_over_when_two_looks_see_the_same() {
        assert_eq!(waits(|look| stamps_at(look.min(1), 5)).await, SETTLE);
        assert_eq!(waits(|look| stamps_at(look.min(4), 5)).await, 4 * SETTLE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_or_missing_file_is_waited_for() {
        assert_eq!(waits(|look| stamps_at(look.min(1), 5 * u64::from(look == 0))).await, BLANK_WAIT);
        let gone = BTreeMap::from([(PathBuf::from("token.json"), None)]);
        assert_eq!(waits(|look| if look == 0 { stamps_at(0, 5) } else { gone.clone() }).await, BLANK_WAIT);
        // It was written after all.
        let late = |look: i64| {
            if look < 4 { stamps_at(look.min(1), 5 * u64::from(look == 0)) } else { stamps_at(4, 5) }
        };
        assert_eq!(waits(late).await, 4 * SETTLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_rests_is_told_all_the_same() {
        assert_eq!(waits(|look| stamps_at(look, 5)).await, UNREST_MAX);
    }
}

//! The file of the next segment, made ahead of time with zeros written to all of it.
//!
//! A sync of bytes that overwrite written ones touches the data alone. In space that is only reserved, each sync also has to
//! make durable that the space is used now, which costs the file system a transaction of its own; as long as that
//! is all there is to do, nearly half of the sync. Where the file is not ready in time, a segment begins in reserved space.

use super::super::folder::sync_dir;
use parking_lot::{Condvar, Mutex};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Its name until it is a segment.
const FILE_NAME: &str = "next";
/// Zeros written and synced at a time: others' syncs wait for no more than that.
const STEP_BYTES: usize = 1024 * 1024;

/// The file of the next segment, in the folder of the segments.
pub(crate) fn path(segments: &Path) -> PathBuf {
    segments.join(FILE_NAME)
}

/// Removes what a process that was killed left.
pub(crate) fn clean(segments: &Path) -> io::Result<()> {
    match fs::remove_file(path(segments)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the files of next segments, on a thread of its own.
pub(crate) struct Preparer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    bytes: usize,
    stage: Mutex<Stage>,
    moved: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody asks.
    Idle,
    /// A file should be there soon.
    Wanted,
    /// It is there, durably but for its name.
    Ready,
    /// It could not be made: once is enough.
    Failed,
    /// The store closes.
    Ended,
}

impl Preparer {
    /// Starts the thread, for segments of `bytes` each.
    pub(crate) fn start(segments: &Path, bytes: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            path: path(segments),
            bytes: bytes as usize,
            stage: Mutex::new(Stage::Idle),
            moved: Condvar::new(),
        });
        let own = shared.clone();
        let thread = std::thread::Builder::new()
            .name("skytale-prepare".into())
            .spawn(move || own.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Asks for the next segment's file, if nobody has yet.
    pub(crate) fn want(&self) {
        let mut stage = self.shared.stage.lock();
        if *stage == Stage::Idle {
            *stage = Stage::Wanted;
            self.shared.moved.notify_all();
        }
    }

    /// Takes the file, if it is ready: the caller gives it a header and a name.
    pub(crate) fn take(&self) -> Option<PathBuf> {
        let mut stage = self.shared.stage.lock();
        (*stage == Stage::Ready).then(|| {
            *stage = Stage::Idle;
            self.shared.path.clone()
        })
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        *self.shared.stage.lock() = Stage::Ended;
        self.shared.moved.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that prepares segments panicked");
        }
        // What is left of it is removed when the store opens, too.
        let _ = fs::remove_file(&self.shared.path);
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut stage = self.stage.lock();
            while *stage != Stage::Wanted {
                if *stage == Stage::Ended {
                    return;
                }
                self.moved.wait(&mut stage);
            }
            drop(stage);
            let made = self.make();
            let mut stage = self.stage.lock();
            if *stage == Stage::Ended {
                return;
            }
            *stage = match made {
                Ok(()) => Stage::Ready,
                Err(error) => {
                    tracing::warn!(path = %self.path.display(), %error, "segments are not prepared ahead; appends are slower");
                    let _ = fs::remove_file(&self.path);
                    Stage::Failed
                }
            };
        }
    }

    fn make(&self) -> io::Result<()> {
        let mut file = File::create(&self.path)?;
        let zeros = vec![0; STEP_BYTES.min(self.bytes)];
        let mut left = self.bytes;
        while left > 0 && *self.stage.lock() != Stage::Ended {
            let step = left.min(zeros.len());
            file.write_all(&zeros[..step])?;
            file.sync_data()?;
            left -= step;
        }
        file.sync_all()
    }
}

/// Gives a prepared file its place among the segments, durably.
pub(crate) fn adopt(prepared: &Path, segments: &Path, path: &Path) -> io::Result<()> {
    fs::rename(prepared, path)?;
    sync_dir(segments).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn taken(preparer: &Preparer) -> PathBuf {
        let begun = Instant::now();
        loop {
            preparer.want();
            match preparer.take() {
                Some(path) => return path,
                None => assert!(begun.elapsed() < Duration::from_secs(60), "no file is made"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_file_is_made_when_it_is_wanted_and_the_last_one_does_not_stay() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let preparer = Preparer::start(dir.path(), 3 * 1024 * 1024 + 5)?;
        assert_eq!(preparer.take(), None);
        for name in ["a", "b"] {
            let path = taken(&preparer);
            let bytes = fs::read(&path)?;
            assert!(bytes.len() == 3 * 1024 * 1024 + 5 && bytes.iter().all(|byte| *byte == 0));
            adopt(&path, dir.path(), &dir.path().join(name))?;
            assert_eq!(preparer.take(), None);
        }
        preparer.want();
        drop(preparer);
        assert!(!path(dir.path()).exists());
        Ok(())
    }

    #[test]
    fn a_folder_that_takes_no_file_only_makes_it_slower() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let preparer = Preparer::start(&dir.path().join("missing"), 1024)?;
        preparer.want();
        while *preparer.shared.stage.lock() == Stage::Wanted {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(*preparer.shared.stage.lock(), Stage::Failed);
        preparer.want();
        assert_eq!(preparer.take(), None);
        Ok(())
    }
}

//! Where a sink writes one file: to a file, to stdout, or into a pipe. What goes into a pipe is written once, in order, and
//! ends soon after the user asked to stop, whoever reads it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{GoOn, OutputError, Supply, fail};

/// How people call stdout.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// The folders whose files are what the process has open.
const OPEN: [&str; 2] = ["/dev/fd", "/proc/self/fd"];
/// How long a reader is waited for before the user's wish to stop is looked at again.
const WAIT: Duration = Duration::from_millis(50);
/// How many bytes a pipe surely takes at once when it takes any (POSIX, PIPE_BUF on Linux).
const CHUNK: usize = 4096;

/// Where one file is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// At a path. A pipe or a device may be there.
    Path(PathBuf),
    /// On stdout.
    Stdout,
}

impl Place {
    /// Reads what a user wrote: `-` is stdout, and so is what the system calls so.
    pub(crate) fn of(text: &Path) -> Self {
        match STDOUT.iter().any(|it| text == Path::new(it)) {
            true => Self::Stdout,
            false => Self::Path(text.to_owned()),
        }
    }

    /// Takes a path from a folder, unless it is absolute.
    pub(crate) fn below(&self, folder: &Path) -> Self {
        match self {
            Self::Path(path) => Self::Path(folder.join(path)),
            Self::Stdout => Self::Stdout,
        }
    }

    /// Returns the path; `None` of stdout.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Stdout => None,
        }
    }

    /// Returns the path for a sink that writes a folder, or a file that nobody pipes.
    pub(super) fn into_path(self) -> PathBuf {
        match self {
            Self::Path(path) => path,
            Self::Stdout => PathBuf::from("-"),
        }
    }

    /// Tells whether it is written once and in order, and nothing can be there that would be lost: stdout, a named pipe, a
    /// device, or what the process has open already.
    pub(crate) fn is_stream(&self) -> bool {
        let Self::Path(path) = self else { return true };
        let is_open = path
            .parent()
            .is_some_and(|it| OPEN.iter().any(|open| it == Path::new(open)));
        is_open
            || fs::metadata(path).is_ok_and(|it| {
                let kind = it.file_type();
                kind.is_fifo() || kind.is_char_device()
            })
    }

    /// Makes sure that bytes which no terminal should see go to none.
    ///
    /// # Errors
    /// When it is a terminal, or cannot be opened.
    pub(super) fn check_no_terminal(&self) -> Result<(), OutputError> {
        let Self::Path(path) = self else {
            return Ok(());
        };
        if !fs::metadata(path).is_ok_and(|it| it.file_type().is_char_device()) {
            return Ok(());
        }
        match open(path).map_err(fail(path))? {
            Some(file) if file.is_terminal() => Err(OutputError::Terminal(self.to_string())),
            _ => Ok(()),
        }
    }

    /// Opens it for bytes that are written once and in order; `None` where a file is to be written in the usual way. A
    /// named pipe is waited for until somebody reads it.
    ///
    /// # Errors
    /// When it cannot be opened, or the user asked to stop.
    pub(super) fn stream<'a>(
        &self,
        supply: &Supply<'_>,
        go_on: GoOn<'a>,
    ) -> Result<Option<Stream<'a>>, OutputError> {
        if !self.is_stream() {
            return Ok(None);
        }
        self.open((supply.stdout, go_on)).map(Some)
    }

    /// Writes all bytes of a small file at once.
    ///
    /// # Errors
    /// When it is no stream, cannot be written, or the user asked to stop.
    pub(crate) fn write(
        &self,
        bytes: &[u8],
        stdout: &dyn Fn() -> io::Result<File>,
        go_on: GoOn<'_>,
    ) -> Result<(), OutputError> {
        let mut stream = self.open((stdout, go_on))?;
        stream.write_all(bytes).map_err(self.failed())
    }

    fn open<'a>(
        &self,
        (standard, go_on): (&dyn Fn() -> io::Result<File>, GoOn<'a>),
    ) -> Result<Stream<'a>, OutputError> {
        let file = match self {
            Self::Stdout => standard().map_err(self.failed())?,
            Self::Path(path) => loop {
                if let Some(file) = open(path).map_err(fail(path))? {
                    break file;
                }
                if !go_on() {
                    return Err(OutputError::Stopped);
                }
                std::thread::sleep(WAIT);
            },
        };
        Ok(Stream { file, go_on })
    }

    /// Makes the error of a write that failed.
    pub(super) fn failed(&self) -> impl FnOnce(io::Error) -> OutputError + use<> {
        let place = match self {
            Self::Stdout => "stdout".to_owned(),
            Self::Path(path) => path.display().to_string(),
        };
        move |error| match error.kind() {
            io::ErrorKind::BrokenPipe => OutputError::Closed(place),
            _ => super::unread(Path::new(&place))(error),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("-"),
        }
    }
}

/// Opens what is there; `None` where a named pipe has no reader yet. What the process has open for files of others is
/// added to, and never cut.
fn open(path: &Path) -> io::Result<Option<File>> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let mut options = File::options();
    let flags = i32::try_from(nonblocking.bits()).unwrap_or_default();
    let opened = options.append(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        // A device says so if it is not there at all.
        Err(error)
            if Errno::from_io_error(&error) == Some(Errno::NXIO)
                && fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)?;
    Ok(Some(file))
}

/// Writes into a pipe as long as it is to go on.
pub(super) struct Stream<'a> {
    file: File,
    go_on: GoOn<'a>,
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: WAIT.as_nanos() as _,
        };
        loop {
            if !(self.go_on)() {
                return Err(io::Error::other("stopped"));
            }
            let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) | Err(Errno::INTR) => {}
                // What is wrong with it, the write says.
                Ok(_) => return self.file.write(&bytes[..bytes.len().min(CHUNK)]),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stdout() {
        for text in STDOUT {
            assert_eq!(Place::of(Path::new(text)), Place::Stdout, "{text}");
        }
        let place = Place::of(Path::new("a/-"));
        assert_eq!(place.below(Path::new("/x")).to_string(), "/x/a/-");
        assert!(!place.is_stream());
        assert!(Place::of(Path::new("/dev/fd/63")).is_stream());
        assert!(Place::of(Path::new("/dev/null")).is_stream());
    }

    #[test]
    fn whoever_asks_to_stop_waits_for_no_reader() {
        let (reader, writer) = io::pipe().unwrap();
        let writer = File::from(std::os::fd::OwnedFd::from(writer));
        let left = std::sync::atomic::AtomicI32::new(40);
        let go_on = || left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) > 0;
        let mut stream = Stream {
            file: writer,
            go_on: &go_on,
        };
        // More than any pipe holds, and nobody reads.
        let error = stream.write_all(&vec![0; 4 << 20]).unwrap_err();
        assert_eq!(error.to_string(), "stopped");
        drop(reader);
        let mut stream = Stream {
            go_on: &|| true,
            ..stream
        };
        let error = stream.write_all(b"x").unwrap_err();
        let place = Place::Stdout;
        assert!(matches!(place.failed()(error), OutputError::Closed(it) if it == "stdout"));
    }
}

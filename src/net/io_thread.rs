//! The thread that drives connections, for callers that wait for them. Knows nothing of what goes over them.

use std::io;
use std::thread::{Builder as ThreadBuilder, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread that drives the connections. It ends with the value.
pub(crate) struct IoThread {
    pub(crate) handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = ThreadBuilder::new().name("net".to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped);
            // A look-up of a name may hang in the system: it is left behind.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! Publishing while cases are processed: finished cases are sent while the next ones are made.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{PublishError, PublishOptions, Selection, TransferProgress, prepare, publish};
use crate::executor::{Pool, spawn_abort_on_drop};
use crate::model::Case;
use crate::store::Store;

/// A queue of finished cases and the task that publishes them.
///
/// Cases that are added while a publish runs are sent together by the next publish.
pub struct IncrementalPublisher {
    finished: mpsc::UnboundedSender<Case>,
    publishing: AbortOnDropHandle<Result<usize, PublishError>>,
}

impl IncrementalPublisher {
    /// Starts the task, which publishes from `source` to `destination` and holds objects in the
    /// memory of `pool`. `stop` ends it.
    pub fn new(
        source: Store,
        destination: Store,
        progress: Arc<dyn TransferProgress>,
        pool: Pool,
        stop: CancellationToken,
    ) -> Self {
        let (finished, queue) = mpsc::unbounded_channel();
        let task = PublisherTask { source, destination, progress, pool, stop };
        Self { finished, publishing: spawn_abort_on_drop(task.run(queue)) }
    }

    /// Adds a finished case to the queue.
    pub fn add(&self, case: Case) {
        // The task has ended only if it panicked: `end` returns that error.
        let _ = self.finished.send(case);
    }

    /// Waits until all cases are published and returns the number of objects sent.
    ///
    /// # Errors
    /// The error of the last publish, after one more attempt.
    pub async fn end(self) -> Result<usize, PublishError> {
        drop(self.finished);
        self.publishing.await?
    }
}

struct PublisherTask {
    source: Store,
    destination: Store,
    progress: Arc<dyn TransferProgress>,
    pool: Pool,
    stop: CancellationToken,
}

impl PublisherTask {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Case>) -> Result<usize, PublishError> {
        let (mut cases, mut sent, mut last) = (BTreeSet::new(), 0, Ok(()));
        while let Some(case) = queue.recv().await {
            cases.insert(case);
            while let Ok(case) = queue.try_recv() {
                cases.insert(case);
            }
            // After a failure the cases stay in the set and are sent together with the next ones.
            last = match self.send(&cases).await {
                Ok(number) => {
                    sent += number;
                    cases.clear();
                    Ok(())
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot publish finished cases yet; they are tried again");
                    Err(error)
                }
            };
        }
        if last.is_err() && !self.stop.is_cancelled() {
            sent += self.send(&cases).await?;
            return Ok(sent);
        }
        last.map(|()| sent)
    }

    /// Publishes `cases` and returns the number of objects sent.
    async fn send(&self, cases: &BTreeSet<Case>) -> Result<usize, PublishError> {
        let cases = cases.clone();
        let selection = Selection { cases, single_cases_only: true, ..Selection::default() };
        let pool = Some(self.pool.clone());
        let options = PublishOptions { selection, pool, ..PublishOptions::default() };
        let prepared = match prepare(&self.source, &self.destination, options, &self.stop).await {
            Err(error @ PublishError::Empty { .. }) => {
                tracing::warn!("{error}");
                return Ok(0);
            }
            prepared => prepared?,
        };
        Ok(publish(prepared, self.progress.clone()).await?.sent)
    }
}

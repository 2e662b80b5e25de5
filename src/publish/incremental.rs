//! Publishing beside processing: finished cases go out while others are worked on.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{PublishError, PublishOptions, Selection, TransferProgress, prepare, publish};
use crate::executor::{Pool, begin};
use crate::model::Case;
use crate::store::Store;

/// Finished cases, on their way to a destination. Those that come while others are sent go together.
pub struct IncrementalPublisher {
    finished: mpsc::UnboundedSender<Case>,
    publishing: AbortOnDropHandle<Result<usize, PublishError>>,
}

impl IncrementalPublisher {
    /// From where cases are finished to where they are published, within the memory of the pool.
    pub fn new(
        source: Store,
        destination: Store,
        progress: Arc<dyn TransferProgress>,
        pool: Pool,
        stop: CancellationToken,
    ) -> Self {
        let (finished, waiting) = mpsc::unbounded_channel();
        let sender = PublisherTask { source, destination, progress, pool, stop };
        Self { finished, publishing: begin(sender.run(waiting)) }
    }

    /// A case is finished.
    pub fn add(&self, case: Case) {
        // A queue that has failed tells so at the end.
        let _ = self.finished.send(case);
    }

    /// Waits until all is published; how many objects were sent.
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
    async fn run(self, mut waiting: mpsc::UnboundedReceiver<Case>) -> Result<usize, PublishError> {
        let (mut cases, mut sent, mut last) = (BTreeSet::new(), 0, Ok(()));
        while let Some(case) = waiting.recv().await {
            cases.insert(case);
            while let Ok(case) = waiting.try_recv() {
                cases.insert(case);
            }
            // What fails now is tried again together with the next.
            last = match self.send(&cases).await {
                Ok(number) => {
                    sent += number;
                    cases.clear();
                    Ok(())
                }
                Err(error) => {
                    tracing::warn!(%error, "finished cases are not published yet");
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

    async fn send(&self, cases: &BTreeSet<Case>) -> Result<usize, PublishError> {
        let cases = cases.clone();
        let selection = Selection { cases, unfinished: true, ..Selection::default() };
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

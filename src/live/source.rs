//! What the stream needs of the store.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::error::Result;
use crate::limits::Limits;
use crate::model::catalog::Catalog;
use crate::model::change::Commit;
use crate::model::related::Want;
use crate::model::schema::SchemaId;
use crate::nice;
use crate::store::{Mark, Reader, Rows, Store};

use super::snapshot::{self, PageAsk};

/// An answer that is read elsewhere.
pub type Reading<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The store, as far as the stream knows it.
pub trait Source: Send + Sync {
    /// The newest entry of the log; of zeros while there is none. Blocks, on a thread outside the
    /// runtime.
    fn newest(&self) -> Result<Mark>;
    /// The catalog after the newest commit.
    fn catalog(&self) -> Arc<Catalog>;
    /// What the writer must gather from now on.
    fn want(&self, want: Want);
    /// Resolves when all that the writer had begun before has reached the tail.
    fn barrier(&self) -> Reading<'_, ()>;
    /// The next page of a snapshot, in a short read of its own. The caller bounds how many ask at
    /// once.
    fn page(&self, ask: PageAsk, limits: &Arc<Limits>) -> Reading<'_, snapshot::Read>;
    /// Up to `limit` commits after position `after`, as [`Reader::replay`] gives them. The caller
    /// bounds how many ask at once.
    fn replay(&self, after: u64, limit: usize, want: Arc<Want>) -> Reading<'_, Stretch>;
    /// As [`Source::replay`], on a thread outside the runtime.
    fn replay_blocking(&self, after: u64, limit: usize, want: Arc<Want>) -> Result<Stretch>;
    /// What the log has at `position`, for a plan that reads these schemas.
    fn place(&self, position: u64, schemas: Vec<SchemaId>) -> Reading<'_, Place>;
}

/// A piece of the log, read in one snapshot.
#[derive(Debug)]
pub struct Stretch {
    /// What the commits were read against.
    pub catalog: Arc<Catalog>,
    /// They follow each other without holes.
    pub commits: Vec<Arc<Commit>>,
    /// The newest entry of the snapshot; of zeros where there is none.
    pub newest: Mark,
}

/// What the log has at a position.
#[derive(Debug)]
pub struct Place {
    /// That of the snapshot.
    pub catalog: Arc<Catalog>,
    /// The oldest entry that was not trimmed; `None` while the log is empty.
    pub oldest: Option<Mark>,
    /// The newest entry.
    pub newest: Option<Mark>,
    /// The entry at the position.
    pub entry: Option<Mark>,
    /// The first of the schemas through which entries right after the position cannot be read.
    pub unreadable: Option<SchemaId>,
    /// The oldest entry after which all can be read.
    pub readable: Option<Mark>,
}

impl Stretch {
    fn read(reader: &Reader<'_>, after: u64, limit: usize, want: &Arc<Want>) -> Result<Self> {
        Ok(Stretch {
            catalog: reader.catalog().clone(),
            commits: reader.replay(after, limit, want)?,
            newest: reader.newest()?.unwrap_or_default(),
        })
    }
}

impl Place {
    fn read(reader: &Reader<'_>, position: u64, schemas: &[SchemaId]) -> Result<Self> {
        let (oldest, newest) = (reader.oldest()?, reader.newest()?);
        let (mut from, mut unreadable) = (0, None);
        for &schema in schemas {
            let readable = reader.readable_from(schema)?;
            if readable > position && unreadable.is_none() {
                unreadable = Some(schema);
            }
            from = from.max(readable);
        }
        let readable = match oldest {
            Some(oldest) if oldest.position < from => reader.mark(from)?,
            oldest => oldest,
        };
        Ok(Place {
            catalog: reader.catalog().clone(),
            oldest,
            newest,
            entry: reader.mark(position)?,
            unreadable,
            readable,
        })
    }
}

impl Source for Store {
    fn newest(&self) -> Result<Mark> {
        let newest = self.read_blocking(|reader| reader.newest())?;
        Ok(newest.unwrap_or_default())
    }

    fn catalog(&self) -> Arc<Catalog> {
        Store::catalog(self)
    }

    fn want(&self, want: Want) {
        Store::want(self, want);
    }

    fn barrier(&self) -> Reading<'_, ()> {
        Box::pin(async { Store::barrier(self).await.map(drop) })
    }

    fn page(&self, ask: PageAsk, limits: &Arc<Limits>) -> Reading<'_, snapshot::Read> {
        let limits = limits.clone();
        Box::pin(self.read_always(move |reader| snapshot::read(reader, &limits, &ask)))
    }

    fn replay(&self, after: u64, limit: usize, want: Arc<Want>) -> Reading<'_, Stretch> {
        let read = move |reader: &Reader<'_>| Stretch::read(reader, after, limit, &want);
        Box::pin(self.read_always(move |reader| nice::by_turns(|| read(reader))))
    }

    // Not by turns: the whole live stream waits for it.
    fn replay_blocking(&self, after: u64, limit: usize, want: Arc<Want>) -> Result<Stretch> {
        self.read_always_blocking(move |reader| Stretch::read(reader, after, limit, &want))
    }

    fn place(&self, position: u64, schemas: Vec<SchemaId>) -> Reading<'_, Place> {
        Box::pin(self.read_always(move |reader| Place::read(reader, position, &schemas)))
    }
}

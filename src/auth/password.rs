//! Passwords: argon2id, a few at a time behind a bounded queue.
//!
//! A hash takes 19 MiB and tens of milliseconds, so it is what an attacker would make a server do;
//! only [`AT_ONCE`] run together and only [`WAITING`] wait, the rest is told to come back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use argon2::password_hash::phc::{self, Output, ParamsString, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::Semaphore;

use crate::error::{Error, Kind, Result};

/// Hashes computed at the same time: 38 MiB, and two cores at most kept from other work.
pub const AT_ONCE: usize = 2;

/// Hashes that may wait: about two seconds of work, beyond which nobody waits gladly.
pub const WAITING: usize = 128;

/// Characters a password may have where one is set.
pub const LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// A password's hash in PHC form. Its contents are shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl PasswordHash {
    /// From the store.
    pub(crate) fn stored(text: String) -> Self {
        PasswordHash(text)
    }

    /// For the store, and for nothing else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// Hashes and verifies.
pub struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// Compared with when there is no user, so that both cost the same.
    nobody: PasswordHash,
    work: Arc<AtomicU64>,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

/// Gives the place in the queue back, also when the client left.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Passwords {
    /// Hashes once, for the hash of nobody.
    pub fn new() -> Result<Passwords> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(Error::internal)?;
        Ok(Passwords {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(AtomicUsize::new(0)),
            nobody: hash(&random)?,
            work: Arc::default(),
        })
    }

    /// 400 unless the password may be set.
    pub fn check(password: &str) -> Result<()> {
        // Bytes first: counting the characters of a long body is not worth it.
        if password.len() > 4 * LENGTH.end() || !LENGTH.contains(&password.chars().count()) {
            let (least, most) = (LENGTH.start(), LENGTH.end());
            return Err(Error::bad(format!("password: must have {least} to {most} characters")));
        }
        Ok(())
    }

    /// The hash of a password that may be set; 400 if it may not, 503 when too many wait, or
    /// where there is no memory for it.
    pub async fn hash(&self, password: &str) -> Result<PasswordHash> {
        Self::check(password)?;
        let password = password.as_bytes().to_vec();
        self.run(move || hash(&password)).await
    }

    /// Whether the password is the one behind `stored`. `None`, an unreadable hash and a password
    /// that nobody could have set cost the same as a wrong one and are `false`. 503 when too many
    /// wait, or where there is no memory for it.
    pub async fn verify(&self, password: &str, stored: Option<&PasswordHash>) -> Result<bool> {
        let possible = Self::check(password).is_ok();
        // An impossible one is cut, so that a body of megabytes costs no more either.
        let password = if possible { password.as_bytes().to_vec() } else { b"-".to_vec() };
        let known = stored.is_some() && possible;
        let (stored, nobody) = (stored.cloned(), self.nobody.clone());
        let work = self.work.clone();
        let against = move || {
            if let Some(stored) = stored
                && let Some(same) = verify(&password, &stored, &work)?
            {
                return Ok(same);
            }
            verify(&password, &nobody, &work)?;
            Ok(false)
        };
        Ok(self.run(against).await? && known)
    }

    /// What verifying took since the start: KiB that Argon2 filled, times the passes over them. A
    /// clock would say the same, but for what else the machine does meanwhile.
    pub fn work(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    async fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.waiting.clone());
        if before >= WAITING + AT_ONCE {
            return Err(Error::new(Kind::Unavailable, "too many logins at once; try again soon"));
        }
        let permit = self.running.clone().acquire_owned().await.map_err(Error::internal)?;
        tokio::task::spawn_blocking(move || {
            let done = job();
            // Held to the end of the work, even if nobody waits for it any more.
            drop((permit, place));
            done
        })
        .await
        .map_err(Error::internal)?
    }
}

fn argon2() -> Result<Argon2<'static>> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(Error::internal)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// What is asked of the allocator for a hash, at least. A block of up to 32 MiB teaches glibc's, as
/// it is given back, to keep as much as twice that of whatever is free from then on: a server held
/// 20 MiB more as it started, and 17 more when 3,000 connections had come and gone twenty times. A
/// larger one goes back to the system at once. What of it is not touched takes no memory.
const MAPPED: usize = 33 << 20;

/// So many blocks; 503 where there is no memory for them: that is this request's trouble alone.
fn memory(blocks: usize) -> Result<Vec<Block>> {
    let mut memory = Vec::new();
    let reserved = memory.try_reserve_exact(blocks.max(MAPPED / Block::SIZE));
    reserved.map_err(|error| {
        tracing::warn!("a password was not hashed: {error}");
        Error::new(Kind::Unavailable, "no memory to look at a password; try again soon")
    })?;
    memory.resize(blocks, Block::new());
    Ok(memory)
}

/// Argon2's output for a password; `None` where it gives none of that length.
fn fill(
    argon2: &Argon2<'_>,
    password: &[u8],
    salt: &Salt,
    length: usize,
) -> Result<Option<Output>> {
    let mut memory = memory(argon2.params().block_count())?;
    let mut out = [0; Output::MAX_LENGTH];
    let Some(out) = out.get_mut(..length) else { return Ok(None) };
    let filled = argon2.hash_password_into_with_memory(password, salt, out, &mut memory[..]);
    Ok(filled.ok().and_then(|()| Output::new(out).ok()))
}

fn hash(password: &[u8]) -> Result<PasswordHash> {
    let argon2 = argon2()?;
    let salt = Salt::generate();
    let hash = fill(&argon2, password, &salt, Params::DEFAULT_OUTPUT_LEN)?;
    let hash = phc::PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(argon2.params()).map_err(Error::internal)?,
        salt: Some(salt),
        hash: Some(hash.ok_or_else(|| Error::internal("a password could not be hashed"))?),
    };
    Ok(PasswordHash(hash.to_string()))
}

/// `None`, with nothing computed, where the stored hash cannot be read.
///
/// # Errors
/// 503: it could be, but there was no memory to compute with.
fn verify(password: &[u8], stored: &PasswordHash, work: &AtomicU64) -> Result<Option<bool>> {
    let same = match Stored::read(&stored.0) {
        Some(stored) => stored.verify(password, work)?,
        None => None,
    };
    if same.is_none() {
        tracing::error!("a stored password hash cannot be read");
    }
    Ok(same)
}

/// A stored hash, taken apart.
struct Stored {
    argon2: Argon2<'static>,
    salt: Salt,
    hash: Output,
}

impl Stored {
    fn read(text: &str) -> Option<Stored> {
        let stored = phc::PasswordHash::new(text).ok()?;
        let params = Params::try_from(&stored).ok()?;
        let algorithm = Algorithm::try_from(stored.algorithm.as_str()).ok()?;
        let version = stored.version.map(Version::try_from).transpose().ok()?.unwrap_or_default();
        let argon2 = Argon2::new(algorithm, version, params);
        Some(Stored { argon2, salt: stored.salt?, hash: stored.hash? })
    }

    fn verify(&self, password: &[u8], work: &AtomicU64) -> Result<Option<bool>> {
        let Some(computed) = fill(&self.argon2, password, &self.salt, self.hash.len())? else {
            return Ok(None);
        };
        let params = self.argon2.params();
        let cost = u64::from(params.m_cost()) * u64::from(params.t_cost());
        work.fetch_add(cost, Ordering::Relaxed);
        // Compared in a time that tells nothing of where they differ.
        Ok(Some(computed == self.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_with_the_stated_cost_and_verifies() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        assert!(passwords.verify("correct horse", Some(&hash)).await.unwrap());
        for wrong in ["correct horsf", "", "short", &"x".repeat(5_000), "-"] {
            assert!(!passwords.verify(wrong, Some(&hash)).await.unwrap());
            assert!(!passwords.verify(wrong, None).await.unwrap());
        }
        assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
    }

    #[test]
    fn hashes_are_those_of_the_crate() {
        use argon2::{PasswordHasher, PasswordVerifier};

        let work = AtomicU64::new(0);
        let ours = hash(b"correct horse").unwrap();
        let params = Params::new(64, 3, 2, Some(20)).unwrap();
        let other = Argon2::new(Algorithm::Argon2i, Version::V0x10, params);
        let theirs: [phc::PasswordHash; 2] = [
            argon2().unwrap().hash_password(b"correct horse").unwrap(),
            other.hash_password(b"correct horse").unwrap(),
        ];
        for (password, same) in [(&b"correct horse"[..], true), (b"correct horsf", false)] {
            let read = phc::PasswordHash::new(ours.expose()).unwrap();
            assert_eq!(argon2().unwrap().verify_password(password, &read).is_ok(), same);
            for theirs in &theirs {
                let stored = PasswordHash::stored(theirs.to_string());
                assert_eq!(verify(password, &stored, &work).unwrap(), Some(same), "{theirs}");
            }
        }
    }

    #[tokio::test]
    async fn whatever_is_wrong_takes_as_much_work() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse").await.unwrap();
        let stored = |text: String| Some(PasswordHash::stored(text));
        let cut = hash.expose().rsplit_once('$').unwrap().0.to_owned();
        let hashes =
            [Some(hash), stored("rubbish".into()), stored(cut), stored(String::new()), None];
        for hash in hashes {
            for password in ["correct horse", "wrong horse", "", &"x".repeat(5_000)] {
                let before = passwords.work();
                passwords.verify(password, hash.as_ref()).await.unwrap();
                assert_eq!(passwords.work() - before, 2 * 19 * 1024, "{hash:?} {}", password.len());
            }
        }
    }

    #[test]
    fn a_lack_of_memory_is_one_request_s_trouble() {
        assert_eq!(memory(usize::MAX).unwrap_err().status(), 503);
        assert_eq!(memory(19 * 1024).unwrap().len(), 19 * 1024);
    }

    #[test]
    fn length_is_counted_in_characters() {
        for (good, password) in [
            (false, "1234567".to_owned()),
            (true, "12345678".to_owned()),
            (true, "ä".repeat(8)),
            (false, "ä".repeat(7)),
            (true, "😀".repeat(256)),
            (false, "x".repeat(257)),
        ] {
            assert_eq!(Passwords::check(&password).is_ok(), good, "{}", password.len());
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let passwords = Arc::new(Passwords::new().unwrap());
        passwords.waiting.store(WAITING + AT_ONCE, Ordering::Relaxed);
        let error = passwords.hash("correct horse").await.unwrap_err();
        assert_eq!(error.status(), 503);
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), WAITING + AT_ONCE);
    }
}

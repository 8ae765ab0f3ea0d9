//! Ranks that train together, and how they speak: every two of them over a stream of bytes.
//!
//! A *rank* is one of several runs of the same program on the same data, each with a device and a copy of the model; rank 0
//! leads. Ranks of one process speak over pairs of sockets ([`Mesh::of_threads`]), those of several processes or machines over
//! TCP ([`Rendezvous`]). What crosses is small but for gradients that no faster way sums. Nothing is encrypted, and who meets is
//! trusted: a network of one's own, as torchrun's.

mod rendezvous;

use std::io::{BufReader, Read, Write};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

pub use self::rendezvous::Rendezvous;
use crate::error::{Error, Result};

/// How long a rank that ends waits until the others have been told.
const FAREWELL: Duration = Duration::from_secs(5);

/// The most numbers that are summed at once: what is under way between two ranks is bounded by it.
const SUMMED_AT_ONCE: usize = 1 << 20;

/// What stands before the bytes of a message.
const ORDER: u8 = 0;
const VALUE: u8 = 1;
const END: u8 = 2;

/// A rank's place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
}

impl Share {
    /// The one and only.
    pub const WHOLE: Share = Share { rank: 0, size: 1 };

    /// Its part of so many things: parts follow one another, differ by one at most, and the first has the most.
    pub fn of(self, count: usize) -> Range<usize> {
        let start = |rank: usize| (rank * count).div_ceil(self.size);
        start(self.rank)..start(self.rank + 1)
    }
}

/// A stream to another rank.
trait Stream: Read + Write + Send + 'static {}
impl<T: Read + Write + Send + 'static> Stream for T {}

/// One rank's streams to all others.
#[derive(Debug)]
pub struct Mesh {
    share: Share,
    /// By rank; none to itself.
    links: Vec<Option<Link>>,
}

struct Link {
    /// To a thread that writes: two ranks that send each other much must not wait for one another.
    outgoing: Option<Sender<Vec<u8>>>,
    /// Closed when that thread has ended.
    written: Receiver<()>,
    incoming: BufReader<Box<dyn Stream>>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Link")
    }
}

impl Link {
    fn new(incoming: Box<dyn Stream>, mut outgoing: Box<dyn Stream>) -> Self {
        let (sender, messages) = channel::<Vec<u8>>();
        let (ended, written) = channel();
        std::thread::spawn(move || {
            let _ended: Sender<()> = ended;
            for message in messages {
                // The rank there is gone; whoever reads from it finds out.
                if outgoing.write_all(&message).and_then(|()| outgoing.flush()).is_err() {
                    break;
                }
            }
        });
        Link { outgoing: Some(sender), written, incoming: BufReader::with_capacity(1 << 16, incoming) }
    }

    fn send(&self, kind: u8, message: &[u8]) {
        let mut framed = Vec::with_capacity(9 + message.len());
        framed.push(kind);
        framed.extend((message.len() as u64).to_le_bytes());
        framed.extend_from_slice(message);
        // As above: a thread that has ended shows in what is read.
        let _ = self.outgoing.as_ref().map(|outgoing| outgoing.send(framed));
    }

    fn receive(&mut self, rank: usize) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        let gone = |error: std::io::Error| Error::rank(rank, format!("is gone: {error}"));
        self.incoming.read_exact(&mut head).map_err(gone)?;
        let [kind, length @ ..] = head;
        let mut message = vec![0; u64::from_le_bytes(length) as usize];
        self.incoming.read_exact(&mut message).map_err(gone)?;
        Ok((kind, message))
    }
}

impl Mesh {
    /// The ranks of one process, one for each thread.
    ///
    /// # Errors
    /// [`Error::Rank`] if the operating system refuses the sockets.
    pub fn of_threads(size: usize) -> Result<Vec<Mesh>> {
        let mut ranks: Vec<Vec<Option<Link>>> = (0..size).map(|_| (0..size).map(|_| None).collect()).collect();
        for first in 0..size {
            for second in first + 1..size {
                let refused = |error: std::io::Error| Error::rank(second, format!("cannot be reached: {error}"));
                let (one, other) = socket_pair().map_err(refused)?;
                ranks[first][second] = Some(one.link().map_err(refused)?);
                ranks[second][first] = Some(other.link().map_err(refused)?);
            }
        }
        let meshes = ranks.into_iter().enumerate();
        Ok(meshes.map(|(rank, links)| Mesh { share: Share { rank, size }, links }).collect())
    }

    /// This rank's place.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Tells all other ranks something, which they [`Mesh::hear`]; of the leader.
    pub fn tell(&self, order: &[u8]) {
        self.links.iter().flatten().for_each(|link| link.send(ORDER, order));
    }

    /// What the leader tells next; `None` when it has ended.
    ///
    /// # Errors
    /// [`Error::Rank`] if the leader is gone.
    pub fn hear(&mut self) -> Result<Option<Vec<u8>>> {
        match self.receive(0)? {
            (ORDER, order) => Ok(Some(order)),
            (END, _) => Ok(None),
            (kind, _) => Err(Error::rank(0, format!("expected an order, got a message of kind {kind}: a bug"))),
        }
    }

    /// What every rank gives, in their order. All wait for all.
    ///
    /// # Errors
    /// [`Error::Rank`] if one of them has ended or is gone.
    pub fn gather(&mut self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.links.iter().flatten().for_each(|link| link.send(VALUE, &own));
        let mut own = Some(own);
        (0..self.share.size).map(|rank| self.value(rank, &mut own)).collect()
    }

    /// Sums numbers over all ranks in place, in the order of ranks, so that all have the same bits. Each rank sums a part of
    /// them and gives it to the others: whatever their number, a rank sends and receives at most twice what it has.
    ///
    /// # Errors
    /// As [`Mesh::gather`].
    pub fn sum(&mut self, numbers: &mut [f32]) -> Result<()> {
        for numbers in numbers.chunks_mut(SUMMED_AT_ONCE) {
            let parts: Vec<Range<usize>> =
                (0..self.share.size).map(|rank| Share { rank, ..self.share }.of(numbers.len())).collect();
            for (link, part) in self.links.iter().zip(&parts) {
                if let Some(link) = link {
                    link.send(VALUE, bytemuck::cast_slice(&numbers[part.clone()]));
                }
            }
            let part = parts[self.share.rank].clone();
            let mut own = Some(bytemuck::cast_slice(&numbers[part.clone()]).to_vec());
            let mut sum = vec![0.0f32; part.len()];
            for rank in 0..self.share.size {
                let theirs = self.value(rank, &mut own)?;
                let theirs =
                    theirs.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                match rank {
                    // Not added to zero, which would lose the sign of a negative one.
                    0 => sum.iter_mut().zip(theirs).for_each(|(sum, one)| *sum = one),
                    _ => sum.iter_mut().zip(theirs).for_each(|(sum, one)| *sum += one),
                }
            }
            let summed = self.gather(bytemuck::cast_slice(&sum).to_vec())?;
            for (part, theirs) in parts.into_iter().zip(summed) {
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut numbers[part]);
                bytes.copy_from_slice(&theirs);
            }
        }
        Ok(())
    }

    /// Tells all others that this rank ends, and why, and waits a little until they have it.
    pub fn end(mut self, reason: &str) {
        self.links.iter().flatten().for_each(|link| link.send(END, reason.as_bytes()));
        for link in self.links.iter_mut().flatten() {
            link.outgoing = None;
            // It never receives: it ends when the thread has ended, or after so long.
            let _ = link.written.recv_timeout(FAREWELL);
        }
    }

    /// A rank's next value, its own included.
    fn value(&mut self, rank: usize, own: &mut Option<Vec<u8>>) -> Result<Vec<u8>> {
        if rank == self.share.rank {
            return Ok(own.take().unwrap_or_default());
        }
        match self.receive(rank)? {
            (VALUE, value) => Ok(value),
            (END, reason) => Err(Error::rank(rank, String::from_utf8_lossy(&reason))),
            (kind, _) => Err(Error::rank(rank, format!("expected a value, got a message of kind {kind}: a bug"))),
        }
    }

    fn receive(&mut self, rank: usize) -> Result<(u8, Vec<u8>)> {
        match self.links.get_mut(rank).and_then(Option::as_mut) {
            Some(link) => link.receive(rank),
            None => Err(Error::rank(rank, "is this rank itself: a bug")),
        }
    }
}

#[cfg(unix)]
fn socket_pair() -> std::io::Result<(std::os::unix::net::UnixStream, std::os::unix::net::UnixStream)> {
    std::os::unix::net::UnixStream::pair()
}

#[cfg(not(unix))]
fn socket_pair() -> std::io::Result<(std::net::TcpStream, std::net::TcpStream)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let one = std::net::TcpStream::connect(listener.local_addr()?)?;
    loop {
        // Only our own end: another program may have been quicker.
        let (other, address) = listener.accept()?;
        if address == one.local_addr()? {
            return Ok((one, other));
        }
    }
}

/// A socket, whose two directions are used by two threads.
trait Socket: Stream + Sized {
    fn again(&self) -> std::io::Result<Self>;

    fn link(self) -> std::io::Result<Link> {
        let outgoing = self.again()?;
        Ok(Link::new(Box::new(self), Box::new(outgoing)))
    }
}

impl Socket for std::net::TcpStream {
    fn again(&self) -> std::io::Result<Self> {
        self.try_clone()
    }
}

#[cfg(unix)]
impl Socket for std::os::unix::net::UnixStream {
    fn again(&self) -> std::io::Result<Self> {
        self.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each rank of a mesh of threads gives.
    fn all<T: Send>(size: usize, rank: impl Fn(Mesh) -> T + Sync) -> Vec<T> {
        let meshes = Mesh::of_threads(size).unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = meshes.into_iter().map(|mesh| scope.spawn(|| rank(mesh))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn shares_cover_everything_once_and_the_first_is_never_smaller() {
        for (count, size) in [(0, 3), (1, 3), (7, 3), (8, 4), (1000, 7)] {
            let shares: Vec<_> = (0..size).map(|rank| Share { rank, size }.of(count)).collect();
            assert_eq!(shares.iter().cloned().flatten().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            let lengths: Vec<_> = shares.iter().map(ExactSizeIterator::len).collect();
            assert!(lengths.iter().all(|&length| length <= lengths[0] && length + 1 >= lengths[0]), "{lengths:?}");
        }
        assert_eq!(Share::WHOLE.of(5), 0..5);
    }

    #[test]
    fn everyone_hears_everyone_in_order() {
        let heard = all(3, |mut mesh| {
            let rank = mesh.share().rank as u8;
            let first = mesh.gather(vec![rank; usize::from(rank)]).unwrap();
            // More than any socket holds: nobody may wait for a reader who is writing.
            let second = mesh.gather(vec![rank; 3_000_000]).unwrap();
            (first, second.iter().map(|bytes| (bytes.len(), bytes[7])).collect::<Vec<_>>())
        });
        for (first, second) in heard {
            assert_eq!(first, [vec![], vec![1], vec![2, 2]]);
            assert_eq!(second, [(3_000_000, 0), (3_000_000, 1), (3_000_000, 2)]);
        }
    }

    #[test]
    fn sums_are_those_of_one_after_the_other_and_the_same_bits_everywhere() {
        let length = SUMMED_AT_ONCE + 5;
        let of = |rank: usize, place: usize| ((place * 7 + rank * 13) % 1000) as f32 * 0.1 + 1e-3;
        let summed = all(3, |mut mesh| {
            let rank = mesh.share().rank;
            let mut numbers: Vec<f32> = (0..length).map(|place| of(rank, place)).collect();
            mesh.sum(&mut numbers).unwrap();
            let mut few = [f32::NAN, -0.0][..1 + rank / 3].to_vec();
            few[0] = -0.0;
            mesh.sum(&mut few).unwrap();
            (numbers, few[0].to_bits())
        });
        let expected: Vec<f32> = (0..length).map(|place| of(0, place) + of(1, place) + of(2, place)).collect();
        for (numbers, zero) in summed {
            assert!(numbers == expected);
            assert_eq!(zero, (-0.0f32).to_bits());
        }
    }

    #[test]
    fn an_order_reaches_all_and_an_end_ends() {
        let heard = all(3, |mut mesh| {
            if mesh.share().rank == 0 {
                mesh.tell(b"step");
                mesh.end("done");
                return Vec::new();
            }
            vec![mesh.hear().unwrap(), mesh.hear().unwrap()]
        });
        assert_eq!(heard[1..], [vec![Some(b"step".to_vec()), None], vec![Some(b"step".to_vec()), None]]);
    }

    #[test]
    fn who_waits_for_one_that_fails_or_dies_is_told_which_and_why() {
        let told = all(3, |mut mesh| match mesh.share().rank {
            1 => {
                mesh.end("the disk is full");
                String::new()
            }
            _ => mesh.gather(vec![1]).unwrap_err().to_string(),
        });
        assert_eq!(told[0], "rank 1: the disk is full");
        assert_eq!(told[2], told[0]);
        let told = all(2, |mut mesh| match mesh.share().rank {
            1 => String::new(),
            _ => mesh.gather(vec![1]).unwrap_err().to_string(),
        });
        assert!(told[0].starts_with("rank 1: is gone"), "{told:?}");
    }
}

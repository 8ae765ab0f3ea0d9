//! Ranks of several processes and machines find one another, by the variables that torchrun and Kubernetes' JobSets set.

use std::io::{Error as IoError, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::{Link, Mesh, Share, Socket};
use crate::error::{Error, Result};

/// How long ranks wait for the others: machines of one job may be started minutes apart.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long one that has connected may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);

/// How often somebody who is not there yet is looked for.
const AGAIN: Duration = Duration::from_millis(100);

/// The first bytes that a rank sends: anything else that connects is no rank.
const MAGIC: &[u8; 16] = b"finetuner ranks1";

/// Where ranks meet, and which of them this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    share: Share,
    address: String,
    port: u16,
    /// This process's number among those of its machine, and how many those are.
    local: Share,
}

/// What a rank says of itself when it connects.
#[derive(Debug, PartialEq)]
struct Greeting {
    share: Share,
    /// What all ranks must have in common.
    settings: [u8; 32],
    /// Where it listens for ranks above it.
    port: u16,
}

impl Greeting {
    const LENGTH: usize = MAGIC.len() + 4 + 4 + 32 + 2;

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((self.share.rank as u32).to_le_bytes());
        bytes.extend((self.share.size as u32).to_le_bytes());
        bytes.extend(self.settings);
        bytes.extend(self.port.to_le_bytes());
        stream.write_all(&bytes)
    }

    /// `None` for one that is no rank.
    fn receive(stream: &mut TcpStream) -> Option<Self> {
        stream.set_read_timeout(Some(GREETING)).ok()?;
        let mut bytes = [0; Self::LENGTH];
        stream.read_exact(&mut bytes).ok()?;
        stream.set_read_timeout(None).ok()?;
        let (magic, rest) = bytes.split_at(MAGIC.len());
        let word = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?) as usize);
        (magic == MAGIC).then_some(())?;
        Some(Greeting {
            share: Share { rank: word(0)?, size: word(4)? },
            settings: rest[8..40].try_into().ok()?,
            port: u16::from_le_bytes(rest[40..42].try_into().ok()?),
        })
    }
}

impl Rendezvous {
    /// From `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT` (29500), `LOCAL_RANK` (0) and `LOCAL_WORLD_SIZE` (1); `None`
    /// where `WORLD_SIZE` is missing or 1. Where torchrun's agent uses that port itself
    /// (`TORCHELASTIC_USE_AGENT_STORE`), ranks meet at the next one.
    ///
    /// # Errors
    /// [`Error::Spec`] for a variable that is missing or no number in its range.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let number = |name: &str, default: Option<usize>| match (variable(name), default) {
            (Some(text), _) => {
                let number = text.trim().parse::<usize>();
                number.map_err(|_| Error::spec(name, format!("expected a number from 0, got `{text}`")))
            }
            (None, Some(default)) => Ok(default),
            (None, None) => {
                Err(Error::spec(name, "is missing beside `WORLD_SIZE`; set it, or unset both for one process"))
            }
        };
        let size = number("WORLD_SIZE", Some(1))?;
        if size == 1 {
            return Ok(None);
        }
        let share = Share { rank: number("RANK", None)?, size };
        let local = Share { rank: number("LOCAL_RANK", Some(0))?, size: number("LOCAL_WORLD_SIZE", Some(1))? };
        for (share, names) in [(share, ["RANK", "WORLD_SIZE"]), (local, ["LOCAL_RANK", "LOCAL_WORLD_SIZE"])] {
            if share.rank >= share.size {
                let problem = format!("expected less than `{}` {}, got {}", names[1], share.size, share.rank);
                return Err(Error::spec(names[0], problem));
            }
        }
        let address = variable("MASTER_ADDR")
            .ok_or_else(|| Error::spec("MASTER_ADDR", "is missing beside `WORLD_SIZE`: the address of rank 0"))?;
        let port = number("MASTER_PORT", Some(29_500))?;
        let taken = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let port = u16::try_from(port + usize::from(taken));
        let port = port.map_err(|_| Error::spec("MASTER_PORT", "expected a port below 65,536"))?;
        Ok(Some(Rendezvous { share, address, port, local }))
    }

    /// Which of all ranks this process is.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Which of its machine's ranks this process is: the number of its GPU.
    pub fn local(&self) -> Share {
        self.local
    }

    /// Meets the others. `settings` must be the same everywhere.
    ///
    /// # Errors
    /// [`Error::Rank`] for one that does not come within ten minutes, was started with other settings, or with a number that
    /// another has.
    pub fn meet(&self, settings: [u8; 32]) -> Result<Mesh> {
        let deadline = Instant::now() + PATIENCE;
        let links = if self.share.rank == 0 { self.host(settings, deadline)? } else { self.join(settings, deadline)? };
        let missing = links.iter().position(Option::is_none).filter(|&rank| rank != self.share.rank);
        match missing {
            Some(rank) => Err(Error::rank(rank, "was never met: a bug")),
            None => Ok(Mesh { share: self.share, links }),
        }
    }

    /// Rank 0 waits for all others, and tells each where those below it listen.
    fn host(&self, settings: [u8; 32], deadline: Instant) -> Result<Vec<Option<Link>>> {
        let listener = self.listen()?;
        let mut met: Vec<Option<(TcpStream, SocketAddr)>> = (0..self.share.size).map(|_| None).collect();
        while let Some(missing) = met.iter().skip(1).position(Option::is_none) {
            let (mut stream, address) = accept(&listener, deadline, missing + 1)?;
            let Some(greeting) = Greeting::receive(&mut stream) else { continue };
            let rank = greeting.share.rank;
            let problem = if greeting.share.size != self.share.size || rank == 0 || rank >= self.share.size {
                format!("says it is {rank} of {}, where there are {}", greeting.share.size, self.share.size)
            } else if met[rank].is_some() {
                "came twice: two processes have the same `RANK`".to_owned()
            } else if greeting.settings != settings {
                "was started with another version or other settings than rank 0".to_owned()
            } else {
                met[rank] = Some((stream, SocketAddr::new(address.ip(), greeting.port)));
                continue;
            };
            return Err(Error::rank(rank, problem));
        }
        let addresses: Vec<String> =
            met.iter().map(|met| met.as_ref().map_or(String::new(), |(_, address)| address.to_string())).collect();
        let list = addresses.join(" ");
        let link = |(rank, met): (usize, Option<(TcpStream, SocketAddr)>)| {
            let Some((mut stream, _)) = met else { return Ok(None) };
            let gone = |error: IoError| Error::rank(rank, format!("is gone: {error}"));
            let told =
                stream.write_all(&(list.len() as u32).to_le_bytes()).and_then(|()| stream.write_all(list.as_bytes()));
            told.map_err(gone)?;
            linked(stream).map(Some).map_err(gone)
        };
        met.into_iter().enumerate().map(link).collect()
    }

    /// Another rank goes to rank 0, then to those below it, and waits for those above.
    fn join(&self, settings: [u8; 32], deadline: Instant) -> Result<Vec<Option<Link>>> {
        let mut leader = self.find(deadline)?;
        let lost = |error: IoError| Error::rank(0, format!("ended the meeting; see what it says: {error}"));
        let own = leader.local_addr().map_err(lost)?.ip();
        let listener = TcpListener::bind((own, 0)).map_err(lost)?;
        let port = listener.local_addr().map_err(lost)?.port();
        let greeting = Greeting { share: self.share, settings, port };
        greeting.send(&mut leader).map_err(lost)?;
        let mut length = [0; 4];
        leader.read_exact(&mut length).map_err(lost)?;
        // An address has less than a hundred letters.
        let length = (u32::from_le_bytes(length) as usize).min(100 * self.share.size);
        let mut list = vec![0; length];
        leader.read_exact(&mut list).map_err(lost)?;
        let list = String::from_utf8_lossy(&list).into_owned();
        let addresses: Vec<&str> = list.split(' ').collect();

        let mut links: Vec<Option<Link>> = (0..self.share.size).map(|_| None).collect();
        links[0] = Some(linked(leader).map_err(lost)?);
        for rank in 1..self.share.rank {
            let unreachable =
                |error: IoError| Error::rank(rank, format!("cannot be reached from this machine: {error}"));
            let address = addresses.get(rank).and_then(|address| address.parse::<SocketAddr>().ok());
            let address = address.ok_or_else(|| Error::rank(0, "sent a list of ranks that cannot be read"))?;
            let mut stream = TcpStream::connect_timeout(&address, GREETING).map_err(unreachable)?;
            greeting.send(&mut stream).map_err(unreachable)?;
            links[rank] = Some(linked(stream).map_err(unreachable)?);
        }
        while let Some(missing) = (self.share.rank + 1..self.share.size).find(|&rank| links[rank].is_none()) {
            let (mut stream, _) = accept(&listener, deadline, missing)?;
            let Some(other) = Greeting::receive(&mut stream) else { continue };
            let rank = other.share.rank;
            if rank > self.share.rank && rank < self.share.size && other.settings == settings && links[rank].is_none() {
                links[rank] = Some(linked(stream).map_err(|error| Error::rank(rank, format!("is gone: {error}")))?);
            }
        }
        Ok(links)
    }

    /// Where rank 0 listens: at its address, or, where that is one that a network translates, at all of the machine's.
    fn listen(&self) -> Result<TcpListener> {
        let own: Vec<SocketAddr> =
            (self.address.as_str(), self.port).to_socket_addrs().map_err(|error| self.refused(&error))?.collect();
        let any = IpAddr::from([0, 0, 0, 0]);
        let bound = TcpListener::bind(&own[..]).or_else(|error| match error.kind() {
            ErrorKind::AddrNotAvailable => TcpListener::bind((any, self.port)),
            _ => Err(error),
        });
        bound.map_err(|error| self.refused(&error))
    }

    /// Rank 0, as soon as it is there.
    fn find(&self, deadline: Instant) -> Result<TcpStream> {
        loop {
            match TcpStream::connect((self.address.as_str(), self.port)) {
                Ok(stream) => return Ok(stream),
                Err(error) if Instant::now() > deadline => return Err(self.refused(&error)),
                Err(_) => std::thread::sleep(AGAIN),
            }
        }
    }

    fn refused(&self, error: &IoError) -> Error {
        let problem = format!("cannot be met at `MASTER_ADDR` {}, port {}: {error}", self.address, self.port);
        Error::rank(0, problem)
    }
}

/// The next one that connects.
fn accept(listener: &TcpListener, deadline: Instant, missing: usize) -> Result<(TcpStream, SocketAddr)> {
    let failed = |error: IoError| Error::rank(missing, format!("cannot be waited for: {error}"));
    listener.set_nonblocking(true).map_err(failed)?;
    loop {
        match listener.accept() {
            Ok((stream, address)) => {
                stream.set_nonblocking(false).map_err(failed)?;
                return Ok((stream, address));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    return Err(Error::rank(missing, "did not come; start as many processes as `WORLD_SIZE` says"));
                }
                std::thread::sleep(AGAIN / 10);
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Small messages go at once, and a machine that is switched off is noticed.
fn linked(stream: TcpStream) -> std::io::Result<Link> {
    stream.set_nodelay(true)?;
    let probes = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    socket2::SockRef::from(&stream).set_tcp_keepalive(&probes)?;
    stream.link()
}

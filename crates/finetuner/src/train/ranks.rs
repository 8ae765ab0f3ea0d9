//! Several ranks in one run: what they tell each other, step by step.
//!
//! Rank 0 runs the loop; the others [`follow`](super::follow) it. All have read the same data and have the same weights, so an
//! order to learn from the next batch or to embed some documents is a few numbers. In a step every rank embeds its rows, gets the
//! embeddings of all, computes the loss of the whole batch and the gradients of its own rows, and all sum them: their optimisers
//! then do the same.
//! Before anything is exchanged every rank says how its own part went, so that none waits for one that failed.

use engine::device::Communicator;
use engine::{Device, Gradients, ParameterId, Parameters, Tensor};
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::course::Course;
use super::guide::Guide;
use super::learner::Learner;
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::mesh::{Mesh, Share};

/// This rank's place in a run.
#[derive(Debug)]
pub(crate) struct Ranks {
    /// Until it ends.
    mesh: Option<Mesh>,
    share: Share,
    /// Whether another rank's process was asked to stop.
    asked_to_stop: bool,
    /// How devices sum gradients without the processor.
    group: Option<Box<dyn Communicator>>,
}

/// What rank 0 wants all to do together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// To take over its weights, moments and steps.
    TakeOver,
    /// To embed items that the model is measured on.
    Embed(Stretch),
    /// To take the losses of held-out batches, a rank one, from this place on.
    Validate(usize),
    /// To learn from a batch.
    Learn(Turn),
}

/// Some items of a column of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretch {
    pub(crate) measure: usize,
    pub(crate) column: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A batch, and the step in which it is learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) epoch: u64,
    /// Its place among the batches of the epoch.
    pub(crate) batch: usize,
    pub(crate) step: usize,
}

/// What all ranks together saw of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) tokens: usize,
    pub(crate) truncated: usize,
}

impl Seen {
    pub(crate) fn of(batch: &Batch) -> Self {
        Seen { tokens: batch.tokens, truncated: batch.truncated }
    }
}

/// How a rank's part of something went.
const DONE: u8 = 0;
const OUT_OF_MEMORY: u8 = 1;
const FAILED: u8 = 2;

impl Ranks {
    pub(crate) fn new(mesh: Mesh) -> Self {
        Ranks { share: mesh.share(), mesh: Some(mesh), asked_to_stop: false, group: None }
    }

    /// Begins: all ranks compare what they have read, take over the weights, moments and steps of rank 0, and their devices make a
    /// group. Gives what there is to know about that.
    ///
    /// # Errors
    /// [`Error::Rank`] for one whose data or model is another's.
    pub(crate) fn begin(
        &mut self,
        learner: &mut Learner,
        device: &dyn Device,
        (course, watch, guide): (&Course, &Watch<'_>, Option<&Guide>),
    ) -> Result<Option<String>> {
        let sizes: Vec<usize> =
            learner.parts().iter().flat_map(|(_, weights, _)| weights.iter()).map(|one| one.value.len()).collect();
        let mut own = [course.fingerprint(), watch.fingerprint()].concat();
        own.extend(guide.iter().flat_map(|guide| guide.fingerprint()));
        own.extend(sizes.iter().flat_map(|size| (*size as u64).to_le_bytes()));
        let all = self.mesh()?.gather(own)?;
        if let Some(rank) = all.iter().position(|other| *other != all[0]) {
            let problem =
                "reads other data than rank 0, trains another model or has another guide; all need the same files";
            return Err(Error::rank(rank, problem));
        }
        self.take_over(learner)?;
        self.join_group(device)
    }

    /// All have the weights, moments and steps of rank 0.
    pub(crate) fn take_over(&mut self, learner: &mut Learner) -> Result<()> {
        for (_, parameters, optimizer) in learner.parts_mut() {
            let mut state = Vec::with_capacity(parameters.len());
            for (parameter, moments) in parameters.iter_mut().zip(optimizer.state()) {
                self.copy_of_leader(std::slice::from_mut(&mut parameter.value))?;
                // How many moments there are depends on whether the weight has ever had a gradient.
                let count = self.of_leader(vec![moments.len() as u8])?.first().copied().unwrap_or(0);
                let mut moments: Vec<Tensor> = moments.clone();
                moments.resize_with(count.into(), || Tensor::zeros(parameter.value.shape()));
                self.copy_of_leader(&mut moments)?;
                state.push(moments);
            }
            let steps = self.of_leader(optimizer.steps().to_le_bytes().to_vec())?;
            let steps = steps.try_into().map(u64::from_le_bytes).unwrap_or_default();
            optimizer.restore(steps, state)?;
        }
        Ok(())
    }

    /// Lets devices that can sum gradients among themselves; those that cannot do it by way of the processor.
    fn join_group(&mut self, device: &dyn Device) -> Result<Option<String>> {
        let name = if self.leads() { device.group_name() } else { None };
        let (name, problem) = match name.transpose() {
            Ok(name) => (name.unwrap_or_default(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let name = self.of_leader(name)?;
        let joined = match name.is_empty() {
            true => None,
            false => Some(device.join_group(&name, (self.share.rank, self.share.size))),
        };
        let own = joined.as_ref().and_then(|joined| joined.as_ref().err()).map(ToString::to_string).or(problem);
        let all = self.mesh()?.gather(own.unwrap_or_default().into_bytes())?;
        let problem = all.iter().find(|problem| !problem.is_empty()).map(|problem| String::from_utf8_lossy(problem));
        let Some(problem) = problem else {
            self.group = joined.and_then(std::result::Result::ok);
            return Ok(None);
        };
        Ok(Some(format!("gradients are summed by way of the processor, which is slower: {problem}")))
    }

    /// This rank's place.
    pub(crate) fn share(&self) -> Share {
        self.share
    }

    /// Whether this is rank 0.
    pub(crate) fn leads(&self) -> bool {
        self.share.rank == 0
    }

    /// Whether another rank's process was asked to stop: then all do.
    pub(crate) fn asked_to_stop(&self) -> bool {
        self.asked_to_stop
    }

    /// Tells the others what to do together; of rank 0.
    pub(crate) fn order(&mut self, order: Order) -> Result<()> {
        let order = serde_json::to_vec(&order).map_err(|error| Error::rank(0, error.to_string()))?;
        self.mesh()?.tell(&order);
        Ok(())
    }

    /// What rank 0 orders next; `None` when the run is over.
    pub(crate) fn next(&mut self) -> Result<Option<Order>> {
        let Some(order) = self.mesh()?.hear()? else { return Ok(None) };
        let unreadable = |error| Error::rank(0, format!("sent an order that cannot be read: {error}: a bug"));
        serde_json::from_slice(&order).map(Some).map_err(unreadable)
    }

    /// The numbers of all ranks, one after another.
    ///
    /// # Errors
    /// As [`Ranks::join`].
    pub(crate) fn concatenate<T: bytemuck::Pod>(&mut self, own: Result<Vec<T>>) -> Result<Vec<T>> {
        let all = self.exchange(own.map(|own| bytemuck::cast_slice(&own).to_vec()))?;
        Ok(all.iter().flat_map(|own| bytemuck::pod_collect_to_vec::<u8, T>(own)).collect())
    }

    /// The embeddings of all rows of a batch from those of each rank's own rows.
    ///
    /// # Errors
    /// This rank's own; of another one [`engine::Error::OutOfMemory`] or [`Error::Rank`].
    pub(crate) fn join(&mut self, own: Result<Vec<f32>>, batch: &Batch) -> Result<(Vec<f32>, Seen)> {
        let mut message = [batch.tokens as u64, batch.truncated as u64].map(u64::to_le_bytes).concat();
        let rows: Vec<u32> = batch.micro_batches.iter().flat_map(|input| input.examples()).copied().collect();
        message.extend((rows.len() as u64).to_le_bytes());
        message.extend_from_slice(bytemuck::cast_slice(&rows));
        let all = self.exchange(own.map(|own| {
            message.extend_from_slice(bytemuck::cast_slice(&own));
            message
        }))?;

        let mut seen = Seen::default();
        let mut known = vec![false; batch.layout.labels.len()];
        let mut embeddings: Vec<f32> = Vec::new();
        for (rank, message) in all.iter().enumerate() {
            let unreadable = || Error::rank(rank, "sent embeddings of other rows than its own: a bug");
            let number = |place: usize| {
                let bytes = message.get(8 * place..8 * place + 8).and_then(|bytes| bytes.try_into().ok());
                bytes.map(u64::from_le_bytes).map(|number| number as usize).ok_or_else(unreadable)
            };
            (seen.tokens, seen.truncated) = (seen.tokens + number(0)?, seen.truncated + number(1)?);
            let count = number(2)?;
            let (rows, numbers) = message[24..].split_at_checked(4 * count).ok_or_else(unreadable)?;
            if count == 0 {
                continue;
            }
            let width = numbers.len() / 4 / count;
            embeddings.resize(known.len() * width, 0.0);
            for (row, numbers) in words(rows).zip(numbers.chunks_exact(4 * width.max(1))) {
                let row = u32::from_le_bytes(row) as usize;
                *known.get_mut(row).ok_or_else(unreadable)? = true;
                let own = embeddings.get_mut(row * width..(row + 1) * width).ok_or_else(unreadable)?;
                own.iter_mut().zip(words(numbers)).for_each(|(own, number)| *own = f32::from_le_bytes(number));
            }
        }
        match known.contains(&false) {
            false => Ok((embeddings, seen)),
            true => Err(Error::rank(0, "and the others did not embed all rows of a batch: a bug")),
        }
    }

    /// What this rank did, where every rank has done its part.
    ///
    /// # Errors
    /// As [`Ranks::join`].
    pub(crate) fn agree<T>(&mut self, own: Result<T>) -> Result<T> {
        let (own, told) = match own {
            Ok(own) => (Some(own), Ok(Vec::new())),
            Err(error) => (None, Err(error)),
        };
        self.exchange(told)?;
        own.ok_or_else(|| Error::rank(self.share.rank, "failed, and went on: a bug"))
    }

    /// Sums gradients over all ranks.
    pub(crate) fn sum(
        &mut self,
        device: &dyn Device,
        parameters: &Parameters,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let own: Vec<u8> = gradients.iter().map(|gradient| u8::from(gradient.is_some())).collect();
        let all = self.mesh()?.gather(own)?;
        let anywhere = |place: usize| all.iter().any(|flags| flags.get(place) == Some(&1));
        let wanted: Vec<bool> = (0..parameters.len()).map(anywhere).collect();
        let mut tensors = gradients.of(parameters, &wanted);
        if let Some(group) = &self.group {
            group.sum(&mut tensors);
            return device.check().map_err(|error| Error::rank(self.share.rank, error.to_string()));
        }
        // Too late for smaller parts: the others are here already.
        device.check().map_err(|error| Error::rank(self.share.rank, error.to_string()))?;
        let mut numbers: Vec<f32> = tensors.iter().flat_map(|tensor| tensor.data()).copied().collect();
        self.mesh()?.sum(&mut numbers)?;
        let mut numbers = &numbers[..];
        for tensor in &mut tensors {
            let (own, others) = numbers.split_at(tensor.len());
            tensor.data_mut().copy_from_slice(own);
            numbers = others;
        }
        Ok(())
    }

    /// What all ranks observed for running statistics.
    pub(crate) fn observed(
        &mut self,
        parameters: &Parameters,
        own: Vec<(ParameterId, Tensor)>,
    ) -> Result<Vec<(ParameterId, Tensor)>> {
        let ids: Vec<ParameterId> = parameters.ids().collect();
        let place = |id: ParameterId| ids.iter().position(|known| *known == id).unwrap_or_default() as u32;
        let entry = |(id, tensor): &(ParameterId, Tensor)| {
            [&place(*id).to_le_bytes(), bytemuck::cast_slice(tensor.data())].concat()
        };
        let all = self.mesh()?.gather(own.iter().flat_map(entry).collect())?;
        let mut observed = Vec::new();
        for (rank, message) in all.iter().enumerate() {
            let mut left = words(message);
            while let Some(place) = left.next() {
                let id = ids.get(u32::from_le_bytes(place) as usize);
                let id = *id.ok_or_else(|| Error::rank(rank, "observed what the model does not have: a bug"))?;
                let shape = parameters.get(id).value.shape();
                let numbers: Vec<f32> = left.by_ref().take(shape.iter().product()).map(f32::from_le_bytes).collect();
                observed.push((id, Tensor::from_vec(numbers, shape)?));
            }
        }
        Ok(observed)
    }

    /// Says that this process was asked to stop, before the next exchange.
    pub(crate) fn ask_to_stop(&mut self) {
        self.asked_to_stop = true;
    }

    /// Ends, and tells the others why.
    pub(crate) fn end(&mut self, reason: &str) {
        self.group = None;
        if let Some(mesh) = self.mesh.take() {
            mesh.end(reason);
        }
    }

    /// What every rank gives where all have done their part.
    fn exchange(&mut self, own: Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let stops = u8::from(self.asked_to_stop);
        let (message, own) = match own {
            Ok(own) => ([vec![DONE, stops], own].concat(), None),
            Err(Error::Engine(memory @ engine::Error::OutOfMemory { .. })) => {
                let numbers = match &memory {
                    engine::Error::OutOfMemory { bytes, free, total, device } => {
                        let numbers = [*bytes, *free, *total].map(u64::to_le_bytes).concat();
                        [numbers, device.clone().into_bytes()].concat()
                    }
                    _ => Vec::new(),
                };
                ([vec![OUT_OF_MEMORY, stops], numbers].concat(), Some(Error::Engine(memory)))
            }
            Err(error) => ([vec![FAILED, stops], error.to_string().into_bytes()].concat(), Some(error)),
        };
        let all = self.mesh()?.gather(message)?;
        self.asked_to_stop |= all.iter().any(|message| message.get(1) == Some(&1));
        // A failure ends the run; a lack of memory does not, wherever it was.
        let of = |kind: u8| all.iter().position(|message| message.first() == Some(&kind));
        if let Some(rank) = of(FAILED) {
            let reason = String::from_utf8_lossy(&all[rank][2..]).into_owned();
            return Err(own.filter(|_| rank == self.share.rank).unwrap_or_else(|| Error::rank(rank, reason)));
        }
        if let Some(rank) = of(OUT_OF_MEMORY) {
            let number = |place: usize| {
                let bytes = all[rank].get(2 + 8 * place..10 + 8 * place).and_then(|bytes| bytes.try_into().ok());
                bytes.map(u64::from_le_bytes).unwrap_or_default()
            };
            let device = String::from_utf8_lossy(all[rank].get(26..).unwrap_or_default());
            return Err(engine::Error::OutOfMemory {
                device: format!("rank {rank}, {device},"),
                bytes: number(0),
                free: number(1),
                total: number(2),
            }
            .into());
        }
        Ok(all.into_iter().map(|message| message[2..].to_vec()).collect())
    }

    /// Rank 0's numbers in place of this rank's.
    fn copy_of_leader(&mut self, tensors: &mut [Tensor]) -> Result<()> {
        for tensor in tensors {
            let own = if self.leads() { bytemuck::cast_slice(tensor.data()).to_vec() } else { Vec::new() };
            let numbers = self.of_leader(own)?;
            if !self.leads() {
                tensor.data_mut().iter_mut().zip(words(&numbers)).for_each(|(own, one)| *own = f32::from_le_bytes(one));
            }
        }
        Ok(())
    }

    /// What rank 0 gives.
    fn of_leader(&mut self, own: Vec<u8>) -> Result<Vec<u8>> {
        let own = if self.leads() { own } else { Vec::new() };
        Ok(self.mesh()?.gather(own)?.swap_remove(0))
    }

    fn mesh(&mut self) -> Result<&mut Mesh> {
        self.mesh.as_mut().ok_or_else(|| Error::rank(self.share.rank, "has ended already: a bug"))
    }
}

/// However a run ends, the others are told.
impl Drop for Ranks {
    fn drop(&mut self) {
        self.end("ended");
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    bytes.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok())
}

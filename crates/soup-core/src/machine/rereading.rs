//! Shards that are audited: another worker reads one again.
//!
//! Of a *load* that is audited, the digests that its owner gives are held against those of another worker, before the shard counts as
//! loaded. Of a *blend* that is audited, another worker reads the shard, makes the blend of it by itself, and fetches the blend from the
//! owner as it does for any soup, so that an owner cannot tell whom to give the right one: both have to be the same. An evaluation is
//! complete once the blends that it was made of are settled, as far as they are audited.
//!
//! Shards that are not what an earlier coordinator recorded are *doubted*: a second worker has to say so, of every one of them, before the
//! run ends for that. Who joins first, after a coordinator died, may be lying.
//!
//! As with [slices](super::auditing), who is on the smaller side is quarantined. The owner of a shard is on the side of every reader that
//! was given what it made by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::auditing::{Claim, larger_side, names_of, undecided};
use super::{Action, Error, Machine, Millis, Work, WorkerId};
use crate::machine::exchange::Reread;
use crate::shard::Shard;
use crate::soup::Soup;

type Digests = Vec<[u8; 32]>;
/// An owner, and what others found of a blend of it.
type OfOwner = (WorkerId, Vec<Claim<Reread>>);

/// Shards that are audited, and not settled.
#[derive(Debug, Default)]
pub(super) struct Rereading {
    /// What was found in them.
    loads: BTreeMap<Shard, Vec<Claim<Digests>>>,
    /// The doubted ones, settled or not, and why they are.
    doubted: BTreeSet<Shard>,
    doubt: String,
    /// What readers found of blends of an owner.
    blends: BTreeMap<(Soup, Shard), OfOwner>,
    /// Of whom blends are settled, and whether anybody has looked.
    settled: BTreeMap<Soup, BTreeMap<Shard, (WorkerId, bool)>>,
    /// The shards of which the blends of a soup are audited, of soups that are wanted.
    audited: BTreeMap<Soup, Vec<Shard>>,
}

impl Rereading {
    /// Whether an owner has said what it found in a shard, and others are asked.
    pub(super) fn awaits(&self, shard: Shard, owner: WorkerId) -> bool {
        self.loads.get(&shard).is_some_and(|claims| claims.iter().any(|claim| claim.by == owner))
    }

    /// Whether what is in a shard is not settled.
    pub(super) fn is_open(&self, shard: Shard) -> bool {
        self.loads.contains_key(&shard)
    }

    /// Whether a worker has said something that is not settled.
    pub(super) fn has_claimed(&self, work: &Work, worker: WorkerId) -> bool {
        match work {
            Work::Reread(shard, None) => self.awaits(*shard, worker),
            Work::Reread(shard, Some(soup)) => {
                let of = self.blends.get(&((**soup).clone(), *shard));
                of.is_some_and(|(owner, claims)| *owner == worker || claims.iter().any(|c| c.by == worker))
            }
            _ => false,
        }
    }

    /// Who said something under one number has another one.
    pub(super) fn renumber(&mut self, from: WorkerId, to: WorkerId) {
        self.loads.values_mut().flatten().filter(|c| c.by == from).for_each(|c| c.by = to);
        let blends = self.blends.values_mut().flat_map(|(_, claims)| claims);
        blends.filter(|c| c.by == from).for_each(|c| c.by = to);
    }

    /// Nobody has a shard any more.
    pub(super) fn lose(&mut self, shard: Shard) {
        self.loads.remove(&shard);
        self.blends.retain(|(_, of), _| *of != shard);
    }
}

impl Machine {
    /// Which blends are to be audited of the soups that are wanted now.
    pub(super) fn plan_rereadings(&mut self) {
        if !self.plan.audit.any() {
            return;
        }
        let wanted: BTreeSet<&Soup> =
            self.goals.wanted().iter().map(|goal| &goal.soup).chain(self.progress.chosen()).collect();
        let shards = (0..self.placement.shards() as u32).map(Shard);
        let mut audited = std::mem::take(&mut self.rereading.audited);
        audited.retain(|soup, _| wanted.contains(soup));
        for soup in &wanted {
            if !audited.contains_key(*soup) {
                let taken = shards.clone().filter(|shard| self.plan.audit.takes_blend(soup, *shard));
                audited.insert((*soup).clone(), taken.collect());
                self.auditing.look_again();
            }
        }
        self.rereading.settled.retain(|soup, _| wanted.contains(soup));
        self.rereading.blends.retain(|(soup, _), _| wanted.contains(soup));
        self.rereading.audited = audited;
    }

    /// Blends of a soup that are audited and not settled, with their owners.
    fn open_blends<'a>(&'a self, soup: &'a Soup) -> impl Iterator<Item = (Shard, Option<WorkerId>)> + 'a {
        let shards = self.rereading.audited.get(soup).map_or(&[][..], Vec::as_slice);
        let settled = self.rereading.settled.get(soup);
        let owned = shards.iter().map(|shard| (*shard, self.placement.owner(*shard)));
        owned.filter(move |(shard, owner)| {
            let of = settled.and_then(|settled| settled.get(shard)).map(|(of, _)| *of);
            of != *owner || owner.is_none()
        })
    }

    /// Whether all blends of a soup that are audited are settled.
    pub(super) fn blends_settled(&self, soup: &Soup) -> bool {
        self.open_blends(soup).next().is_none()
    }

    /// Whether a soup has blends that nobody has audited.
    pub(super) fn has_unaudited_blends(&self, soup: &Soup) -> bool {
        let settled = self.rereading.settled.get(soup);
        let known = |shard: &Shard, owner| settled.and_then(|s| s.get(shard)) == Some(&(owner, true));
        self.placement.resident().any(|(shard, owner, _)| !known(&shard, owner))
    }

    /// A shard for `worker` to read again.
    pub(super) fn pick_reread(&self, worker: WorkerId, ready: bool, now: Millis) -> Option<Work> {
        if !self.plan.audit.any() {
            return None;
        }
        let may = |work: &Work| self.tasks.is_open(work, now) && !self.is_barred(work, worker);
        let loads = self.rereading.loads.keys().map(|shard| Work::Reread(*shard, None));
        if let Some(work) = loads.into_iter().find(|work| may(work)) {
            return Some(work);
        }
        // What streams is read for the files first.
        if !ready || self.plan.streams && !self.writing.all_files() {
            return None;
        }
        let soups = self.goals.wanted().iter().map(|goal| &goal.soup).chain(self.progress.chosen());
        let mut blends = soups.flat_map(|soup| {
            let others = self.open_blends(soup).filter(|(_, o)| o.is_some_and(|owner| owner != worker));
            others.map(|(shard, _)| Work::Reread(shard, Some(Box::new(soup.clone()))))
        });
        blends.find(|work| may(work))
    }

    /// The owner of a shard, or whoever was to read it again, says what is in it. Gives whether that is to be audited.
    pub(super) fn load_claimed(
        &mut self,
        worker: WorkerId,
        shard: Shard,
        digests: &[[u8; 32]],
        out: &mut Vec<Action>,
    ) -> bool {
        if !self.plan.audit.takes_load(shard) && !self.rereading.doubted.contains(&shard) {
            return false;
        }
        let known = self.placement.digests_of(shard);
        let at = self.deeds.now();
        let claims = self.rereading.loads.entry(shard).or_default();
        match known {
            // It was read, and perhaps audited, before.
            Some((_, known)) if claims.is_empty() && known == digests => {
                self.rereading.loads.remove(&shard);
                return false;
            }
            Some((by, known)) if claims.is_empty() && by != worker => {
                claims.push(Claim { by, at: 0, said: known.to_vec() });
            }
            _ => {}
        }
        if claims.iter().all(|claim| claim.by != worker) {
            claims.push(Claim { by: worker, at, said: digests.to_vec() });
        }
        self.settle_load(shard, out);
        true
    }

    /// Has other workers read again what owners alone say of shards, where that is not what the log knows, and runs are audited. False
    /// where there is no shard of which that was not asked already.
    pub(super) fn doubt_loads(&mut self, why: &str) -> bool {
        if !self.plan.audit.any() {
            return false;
        }
        let shards = (0..self.placement.shards() as u32).map(Shard);
        let doubted: Vec<Shard> = shards.filter(|shard| !self.rereading.doubted.contains(shard)).collect();
        for &shard in &doubted {
            let Some((by, known)) = self.placement.digests_of(shard) else { continue };
            let by = self.placement.owner(shard).unwrap_or(by);
            let claim = Claim { by, at: self.deeds.now(), said: known.to_vec() };
            self.rereading.loads.insert(shard, vec![claim]);
            self.rereading.doubted.insert(shard);
            // What streams is judged by nobody, and is published when all is settled.
            if !self.plan.streams {
                self.placement.not_yet_resident(shard);
            }
        }
        why.clone_into(&mut self.rereading.doubt);
        self.auditing.look_again();
        !doubted.is_empty()
    }

    /// A worker has read a shard again.
    pub(super) fn reread(
        &mut self,
        worker: WorkerId,
        shard: Shard,
        soup: Option<&Soup>,
        found: Reread,
        out: &mut Vec<Action>,
    ) {
        let Some(soup) = soup else {
            if self.rereading.loads.contains_key(&shard) {
                self.load_claimed(worker, shard, &found.digests, out);
            }
            return;
        };
        let Some(owner) = self.placement.owner(shard).filter(|owner| *owner != worker) else { return };
        if !self.open_blends(soup).any(|(open, _)| open == shard) {
            return;
        }
        let at = self.deeds.now();
        let key = (soup.clone(), shard);
        let (of, claims) = self.rereading.blends.entry(key).or_insert((owner, Vec::new()));
        if *of != owner {
            (*of, *claims) = (owner, Vec::new());
        }
        claims.push(Claim { by: worker, at, said: found });
        self.settle_blend(soup, shard, out);
    }

    /// Whether what was found in shards is settled.
    pub(super) fn loads_settled(&self) -> bool {
        self.rereading.loads.is_empty()
    }

    /// Settles what can be settled of shards.
    pub(super) fn settle_shards(&mut self, out: &mut Vec<Action>) {
        let loads: Vec<Shard> = self.rereading.loads.keys().copied().collect();
        loads.into_iter().for_each(|shard| self.settle_load(shard, out));
        let soups: Vec<Soup> = self.rereading.audited.keys().cloned().collect();
        for soup in soups {
            let open: Vec<Shard> = self.open_blends(&soup).map(|(shard, _)| shard).collect();
            open.into_iter().for_each(|shard| self.settle_blend(&soup, shard, out));
        }
    }

    /// Whether anybody is there who could read a shard again, and has not.
    fn another_reader(&self, work: &Work) -> bool {
        self.workers.iter().any(|(worker, state)| {
            !state.leaving && !self.has_said(work, *worker) && !self.tasks.failed_on(work, *worker)
        })
    }

    /// Whether a worker has said something of this already that is audited, or is who is audited.
    pub(super) fn has_said(&self, work: &Work, worker: WorkerId) -> bool {
        let owns =
            matches!(work, Work::Reread(shard, Some(_)) if self.placement.owner(*shard) == Some(worker));
        owns || self.auditing.has_claimed(work, worker) || self.rereading.has_claimed(work, worker)
    }

    fn settle_load(&mut self, shard: Shard, out: &mut Vec<Action>) {
        let Some(claims) = self.rereading.loads.get(&shard).filter(|_| self.progress.is_open()) else {
            return;
        };
        let side = larger_side(claims, |a, b| a.said == b.said);
        if side.is_none() {
            if self.another_reader(&Work::Reread(shard, None)) {
                return;
            }
            if let [first, second, ..] = &claims[..] {
                let what = differing(&first.said, &second.said);
                let error = undecided(&format!("what is in shard {}", shard.0), claims, &what);
                return self.auditing.dispute(error);
            }
            if self.rereading.doubted.contains(&shard) {
                return self.auditing.dispute(Error::data(self.rereading.doubt.clone()));
            }
        }
        self.auditing.count(side.is_some());
        self.withdraw(&Work::Reread(shard, None), out);
        let claims = self.rereading.loads.remove(&shard).unwrap_or_default();
        let side = side.unwrap_or_else(|| (0..claims.len()).collect());
        let (right, wrong): (Vec<_>, Vec<_>) =
            claims.into_iter().enumerate().partition(|(at, _)| side.contains(at));
        let Some((_, truth)) = right.first() else { return };
        let right_ones = names_of(right.iter().map(|(_, claim)| claim.by));
        for (_, claim) in &wrong {
            let what = differing(&truth.said, &claim.said);
            let text = format!("it read something else of shard {} than {right_ones}: {what}", shard.0);
            self.quarantine(claim.by, &text, out);
        }
        // What streams is told by its owner, or by the next one.
        if self.plan.streams {
            return self.check_digests(out);
        }
        let over = !self.progress.is_open();
        if over || !self.digested(truth.by, shard, truth.said.clone(), out) {
            return;
        }
        let owner = self.placement.owner(shard).filter(|o| right.iter().any(|(_, claim)| claim.by == *o));
        if let Some(owner) = owner {
            self.known_to_be_loaded(owner, shard, out);
        }
    }

    fn settle_blend(&mut self, soup: &Soup, shard: Shard, out: &mut Vec<Action>) {
        let key = (soup.clone(), shard);
        let Some(owner) = self.placement.owner(shard).filter(|_| self.progress.is_open()) else { return };
        let known = self.placement.digests_of(shard).map(|(_, known)| known.to_vec());
        let of = self.rereading.blends.get(&key).filter(|(of, _)| *of == owner);
        let claims = of.map_or(&[][..], |(_, claims)| claims);
        let good = |c: &Reread| c.blend == c.served && known.as_ref().is_none_or(|known| *known == c.digests);
        let agree =
            |a: &Reread, b: &Reread| a.digests == b.digests && a.blend == b.blend && good(a) == good(b);
        // The owner is on the side of whom it gave what that made.
        let with_owner = 1 + claims.iter().filter(|c| good(&c.said)).count();
        let against: Vec<&Claim<Reread>> = claims.iter().filter(|c| !good(&c.said)).collect();
        let side = larger_side(&against, |a, b| agree(&a.said, &b.said))
            .map_or(usize::from(!against.is_empty()), |s| s.len());
        let work = Work::Reread(shard, Some(Box::new(soup.clone())));
        if with_owner.max(side) < 2 || with_owner == side {
            if self.another_reader(&work) {
                return;
            }
            if let Some(claim) = against.first() {
                let about = format!(
                    "the blend of a soup of {} ingredients on shard {}",
                    soup.members().len(),
                    shard.0
                );
                let text = format!(
                    "worker {} has {about}, and gives another one than worker {} makes of what it reads; nobody can tell who is right \
                     without one more worker",
                    owner.0, claim.by.0
                );
                return self.auditing.dispute(Error::configuration(text));
            }
            self.auditing.count(false);
            self.rereading.settled.entry(soup.clone()).or_default().insert(shard, (owner, false));
            self.withdraw(&work, out);
            return self.blends_are_settled(soup, out);
        }
        self.withdraw(&work, out);
        let (_, claims) = self.rereading.blends.remove(&key).unwrap_or((owner, Vec::new()));
        self.auditing.count(true);
        let (right, wrong): (Vec<Claim<Reread>>, Vec<Claim<Reread>>) =
            claims.into_iter().partition(|c| good(&c.said) == (with_owner > side));
        let right_ones = names_of(right.iter().map(|claim| claim.by));
        let about = format!("shard {}, of a soup of {} ingredients", shard.0, soup.members().len());
        if with_owner > side {
            let at = right.iter().map(|claim| claim.at).max().unwrap_or(0);
            self.deeds.served_well(owner, at);
            self.rereading.settled.entry(soup.clone()).or_default().insert(shard, (owner, true));
            for claim in &wrong {
                let text = format!("it found a wrong blend where {right_ones} found none: {about}");
                self.quarantine(claim.by, &text, out);
            }
            return self.blends_are_settled(soup, out);
        }
        let text =
            format!("its blend is not the one that {right_ones} made of the same ingredients: {about}");
        self.quarantine(owner, &text, out);
    }

    /// What waited for the blends of a soup goes on.
    fn blends_are_settled(&mut self, soup: &Soup, out: &mut Vec<Action>) {
        if !self.blends_settled(soup) {
            return;
        }
        self.auditing.look_again();
        let open: Vec<_> =
            self.judging.open().map(|(of, _)| of).filter(|of| of.soup == *soup).cloned().collect();
        for evaluation in open {
            if let Err(error) = self.conclude(&evaluation) {
                return self.finish(Err(error), out);
            }
        }
    }

    /// Forgets what was found by a worker that is not believed. Shards may have been doubted because of it.
    pub(super) fn disbelieve_rereadings(&mut self, worker: WorkerId) {
        self.rereading.doubted.clear();
        for claims in self.rereading.loads.values_mut() {
            claims.retain(|claim| claim.by != worker);
        }
        self.rereading.loads.retain(|_, claims| !claims.is_empty());
        self.rereading.blends.retain(|_, (owner, claims)| {
            claims.retain(|claim| claim.by != worker);
            *owner != worker && !claims.is_empty()
        });
    }
}

/// How what was found in a shard differs.
fn differing(a: &Digests, b: &Digests) -> String {
    let at = a.iter().zip(b).position(|(a, b)| a != b);
    match at {
        Some(at) => format!(
            "ingredient {at} has SHA-256 {} there and {} here",
            hex::encode(a[at]),
            hex::encode(b[at])
        ),
        None => "they are of other ingredients".to_owned(),
    }
}

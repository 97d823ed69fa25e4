//! Files that are read back by somebody else than their writers.

use super::*;

/// The digest that every honest worker writes and reads.
const TRUE: [u8; 32] = [8; 32];

/// A run of 3 files in which all but writing is soon done.
fn plan_of_files() -> Plan {
    let mut plan = plan(RecipeKind::Uniform, 3, 3);
    (plan.baselines, plan.diagnosis.layers) = (false, None);
    plan
}

fn cluster(workers: u32) -> Cluster {
    let mut cluster = Cluster::new(plan_of_files());
    (0..workers).for_each(|_| cluster.join());
    cluster
}

/// What a worker says of a file that it writes (or else reads); `None`: that it cannot.
type Says<'a> = &'a dyn Fn(WorkerId, u32, bool) -> Option<[u8; 32]>;

/// Runs to the end; gives who has written and who has read each file, in order.
fn run(cluster: &mut Cluster, says: Says<'_>) -> [Vec<(u32, WorkerId)>; 2] {
    let (mut wrote, mut read) = (Vec::new(), Vec::new());
    while cluster.result.is_none() {
        cluster.durable();
        let Some((worker, key, work)) = cluster.inbox.pop_front() else {
            cluster.now += 1000;
            cluster.event(Event::Tick);
            continue;
        };
        let of = |file: u32, writes: bool| {
            says(worker, file, writes)
                .ok_or_else(|| Error::configuration("it is not on storage that is shared"))
        };
        let answer = match &work {
            _ if key.task == 0 => {
                let files = cluster.machine.files().unwrap();
                assert!(files.iter().all(|file| file.file_sha256 == TRUE), "published what is not there");
                cluster.event(Event::Published(Ok(())));
                continue;
            }
            Work::Write(_, file) => {
                wrote.push((*file, worker));
                let digest = |file_sha256| FileDigest { data_sha256: [7; 32], file_sha256, bytes: 9 };
                of(*file, true).map(|sha256| TaskResult::Written(digest(sha256)))
            }
            Work::ReadBack(file) => {
                read.push((*file, worker));
                of(*file, false).map(|sha256| TaskResult::ReadBack { bytes: 9, sha256 })
            }
            work => Ok(cluster.truth(work)),
        };
        cluster.event(match answer {
            Ok(result) => Event::Done(worker, key, result),
            Err(error) => Event::Failed(worker, key, error),
        });
    }
    [wrote, read]
}

fn of_file(file: u32, done: &[(u32, WorkerId)]) -> Vec<WorkerId> {
    done.iter().filter(|(f, _)| *f == file).map(|(_, worker)| *worker).collect()
}

#[test]
fn every_file_is_read_back_by_another_worker_where_there_is_one() {
    for workers in [1, 2, 3] {
        let mut cluster = cluster(workers);
        let [wrote, read] = run(&mut cluster, &|_, _, _| Some(TRUE));
        cluster.outcome();
        for file in 0..3 {
            let (wrote, read) = (of_file(file, &wrote), of_file(file, &read));
            assert_eq!((wrote.len(), read.len()), (1, 1));
            assert_eq!(wrote == read, workers == 1, "file {file} of {workers} workers");
        }
        assert!(!cluster.machine.notes().any(|n| n.contains("written again")));
    }
}

/// Whoever is wrong, in what it writes, reads or says: with three workers the other two come to the same.
#[test]
fn a_file_that_reads_back_otherwise_is_written_again_by_others() {
    let mut asked = 0;
    for (odd, when_it_writes) in [1, 2, 3].into_iter().flat_map(|odd| [(odd, true), (odd, false)]) {
        let mut cluster = cluster(3);
        let odd = WorkerId(odd);
        let says = |worker, _, writes: bool| {
            Some(if worker == odd && writes == when_it_writes { [9; 32] } else { TRUE })
        };
        let [wrote, read] = run(&mut cluster, &says);
        cluster.outcome();
        let its = if when_it_writes { &wrote } else { &read };
        let met = its.iter().filter(|(_, worker)| *worker == odd).count();
        asked += usize::from(met > 0);
        for file in 0..3 {
            // What the odd one did of a file was done twice, by others the second time.
            let (wrote, read) = (of_file(file, &wrote), of_file(file, &read));
            let its = if when_it_writes { &wrote } else { &read };
            let twice = its.contains(&odd);
            assert_eq!((wrote.len(), read.len()), if twice { (2, 2) } else { (1, 1) });
            assert!(!twice || (wrote[0] != wrote[1] && read[0] != read[1]), "{wrote:?} {read:?}");
        }
        let text = format!("worker {}", odd.0);
        let noted =
            cluster.machine.notes().filter(|n| n.contains(&text) && n.ends_with("it is written again"));
        assert_eq!(noted.count(), met);
    }
    assert!(asked >= 4, "the odd ones had little to do: {asked}");
}

#[test]
fn a_store_that_changes_what_is_written_ends_the_run() {
    for workers in [1, 2, 3] {
        let mut cluster = cluster(workers);
        let [wrote, read] =
            run(&mut cluster, &|_, file, writes| Some(if file == 1 && !writes { [9; 32] } else { TRUE }));
        let error = cluster.result.take().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        for part in ["output file 2 of 3", &hex::encode([9; 32]), &hex::encode(TRUE), "3 times in a row"] {
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        assert_eq!((of_file(1, &wrote).len(), of_file(1, &read).len()), (3, 3));
    }
}

/// On storage that only some workers see, those read back who can: whoever wrote it, in the end.
#[test]
fn who_cannot_reach_a_file_leaves_it_to_its_writer() {
    let mut cluster = cluster(3);
    let [wrote, read] =
        run(&mut cluster, &|worker, _, writes| (writes || worker == WorkerId(1)).then_some(TRUE));
    let failed = cluster.result.as_ref().unwrap().is_err();
    // What 2 and 3 wrote they cannot read themselves, and 1 reads it; what 1 wrote it reads after one of them could not.
    assert!(!failed, "{:?}", cluster.result);
    for file in 0..3 {
        let (wrote, read) = (of_file(file, &wrote), of_file(file, &read));
        assert_eq!(read.last(), Some(&WorkerId(1)), "file {file} by {wrote:?} read by {read:?}");
    }
}

#[test]
fn what_lost_workers_wrote_and_were_reading_is_read_by_others() {
    let mut cluster = cluster(3);
    while !cluster.inbox.iter().any(|(.., work)| matches!(work, Work::ReadBack(_))) {
        cluster.step();
    }
    let reader = cluster.inbox.iter().find(|(.., work)| matches!(work, Work::ReadBack(_))).map(|(w, ..)| *w);
    let at = cluster.alive.iter().position(|worker| Some(*worker) == reader).unwrap();
    cluster.lose(at);
    // Its shards are loaded again first.
    cluster.run_quietly();
    cluster.outcome();
    let mut cluster = Cluster::new(streaming(3));
    (0..2).for_each(|_| cluster.join());
    cluster.run_quietly();
    cluster.outcome();
}

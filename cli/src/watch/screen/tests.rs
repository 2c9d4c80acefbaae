use api::KindDemand;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

const JOB: &str = r#"{"id":"0190a5b0-0000-7000-8000-00000000beef","kind":"sleep","params":{},"state":"running",
    "priority":9,"tags":{},"affinity":{},"requires":{},"max_attempts":4,"timeout":{},
    "tasks":{"total":200,"pending":90,"running":10,"succeeded":100,"failed":0},
    "progress":{"fraction":0.5,"tasks_per_second":12.5,"seconds_left":8.0},"attempts":110,
    "submitted_at":"2026-03-21T10:00:00Z","notice":"two\nlines"}"#;

const WORKER: &str = r#"{"id":"worker-1","boot_id":"0190a5b0-0000-7000-8000-000000000001",
    "delivery":"pushed","address":"127.0.0.1:8082","slots":4,"busy":4,"running":3,"last_seen_ms_ago":10,"state":"suspended",
    "completed_tasks":77,"speed_numbers_per_s":30000000,"cpu_load":0.25,"free_memory_bytes":1073741824,"labels":{},
    "resources":{"cpus":4,"memory_bytes":1},"kinds":["sleep"],"version":"0.1.0"}"#;

fn view(is_coloured: bool) -> View {
    let mut stats = Stats { tasks_per_second: 12.5, ..Stats::default() };
    (stats.tasks.pending, stats.workers.suspended) = (95, 1);
    let demand = KindDemand { runnable: 90, paused: 5, ..KindDemand::default() };
    stats.demand.insert("sleep".to_owned(), demand);
    stats.jobs.insert("running".to_owned(), 1);
    stats.queue_depth_by_priority.extend([(9, 60), (1, 30)]);
    let workers = vec![serde_json::from_str(WORKER).expect("a worker")];
    let jobs = vec![serde_json::from_str(JOB).expect("a job")];
    let mut view = View::new("http://127.0.0.1:8080/", Palette { is_coloured });
    view.show(Ok(Snapshot { stats, workers, jobs }));
    view
}

fn render(view: &View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
    terminal.draw(|frame| draw(frame, view)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    cells.chunks(width.into()).map(|line| line.concat().trim_end().to_owned()).collect()
}

fn assert_line(lines: &[String], parts: &[&str]) {
    let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
    assert!(lines.iter().any(has_all), "{parts:?} in\n{}", lines.join("\n"));
}

#[test]
fn screen_shows_workers_jobs_throughput_and_queue() {
    let lines = render(&view(true), 140, 30);
    assert_line(&lines, &["divvy http://127.0.0.1:8080  q quits, ? shows the keys"]);
    assert_line(&lines, &["Throughput: 12.5 tasks/s, 0 numbers/s", "Queue: 90 tasks wait"]);
    assert_line(&lines, &["5 paused"]);
    assert_line(&lines, &["priority 9 ████████████████ 60"]);
    assert_line(&lines, &["priority 1 ████████········ 30"]);
    assert_line(&lines, &["Workers: 0 ready, 1 suspended"]);
    assert_line(&lines, &["worker-1", "suspended", "████████████···· 3/4", "25%", "1.0 GiB", "77", "30.0M/s"]);
    assert_line(&lines, &["Jobs: 1 running"]);
    let id = "0190a5b0-0000-7000-8000-00000000beef";
    assert_line(&lines, &[id, "sleep", "running", " 9 ", " 50%", "100/200", "12.5/s", "8s", "two lines"]);
}

#[test]
fn narrow_screen_shows_the_end_of_ids_and_the_smallest_one_draws() {
    assert_line(&render(&view(true), 100, 24), &["00000000beef", "running"]);
    for (width, height) in [(1, 1), (20, 5), (40, 10)] {
        render(&view(true), width, height);
    }
}

#[test]
fn screen_of_80_columns_shows_every_figure_whole() {
    let mut view = view(true);
    (view.snapshot.stats.workers.simulated, view.snapshot.stats.workers.leases) = (24, 24);
    let demand =
        KindDemand { runnable: 7_400_000_000_000, paused: 12_500_000, unservable: 100_000, ..KindDemand::default() };
    view.snapshot.stats.demand.insert("sleep".to_owned(), demand);
    let mut done = view.snapshot.jobs[0].clone();
    (done.progress.fraction, done.tasks.succeeded) = (1.0, 200);
    view.snapshot.jobs.push(done);
    view.snapshot.workers[0].cpu_load = 1.0;
    let lines = render(&view, 80, 24);
    assert_line(&lines, &["WORKER", "STATE", "SLOTS", "LOAD", "FREE", "DONE", "NUMBERS"]);
    assert_line(&lines, &["worker-1", "suspended", "3/4", "100%", "1.0 GiB", "77", "30.0M/s"]);
    assert_line(&lines, &["JOB", "KIND", "STATE", "PRI", "DONE", "TASKS", "RATE", "LEFT"]);
    assert_line(&lines, &["00000000beef", "sleep", "running", " 9 ", "50%", "100/200", "12.5/s", "8s"]);
    assert_line(&lines, &["00000000beef", "100%", "200/200"]);
    assert_line(&lines, &["Workers: 0 ready, 1 suspended, 24 simulated; 24 slots, 24 leases"]);
    assert_line(&lines, &["Queue: 7.4T tasks wait"]);
    assert_line(&lines, &["12.5M paused, 100000 without a worker"]);
    // At half of that the figures that are left are whole, too.
    let lines = render(&view, 40, 24);
    assert_line(&lines, &["00000000beef", "running", "100%", "200/200"]);
}

#[test]
fn a_job_that_has_lost_its_workers_waits() {
    let mut view = view(true);
    let job = &mut view.snapshot.jobs[0];
    (job.tasks.pending, job.tasks.running) = (100, 0);
    assert_line(&render(&view, 140, 30), &["beef", "sleep", "waiting", "two lines"]);
    view.snapshot.jobs[0].notice = None;
    assert_line(&render(&view, 140, 30), &["beef", "sleep", "running"]);
}

#[test]
fn chart_has_its_scale_and_its_time() {
    let mut view = view(true);
    let mut slower = view.snapshot.clone();
    slower.stats.tasks_per_second = 2.0;
    view.show(Ok(slower));
    let lines = render(&view, 80, 24);
    assert_line(&lines, &["12.5/s"]);
    let axis = lines.iter().position(|line| line.contains(" ago") && line.contains("now")).expect("an axis");
    assert!(lines[axis - 1].trim_start().starts_with('0'), "{}", lines.join("\n"));
}

#[test]
fn priorities_beyond_the_height_are_told_together() {
    let mut view = view(true);
    view.snapshot.stats.queue_depth_by_priority.extend((1..=9).map(|priority| (priority, 1)));
    let lines = render(&view, 80, 24);
    assert_line(&lines, &["priority 7"]);
    assert_line(&lines, &["6 lower priorities: 6"]);
}

#[test]
fn help_lists_every_key_and_goes_again() {
    let mut view = view(true);
    view.toggle_help();
    let lines = render(&view, 80, 24);
    assert_line(&lines, &["q, Esc, Ctrl-C", "quit"]);
    assert_line(&lines, &["?, h", "show or hide this help"]);
    view.toggle_help();
    assert!(!render(&view, 80, 24).iter().any(|line| line.contains("Ctrl-C")));
}

#[test]
fn unreachable_grid_is_told_and_the_last_figures_stay() {
    let mut view = view(true);
    view.show(Err(Failure::Unreachable { url: "http://h/".to_owned(), cause: "connection\nrefused".to_owned() }));
    let lines = render(&view, 140, 30);
    assert_line(&lines, &["divvy", "cannot reach the grid at http://h/: connection refused"]);
    assert_line(&lines, &["100/200"]);
}

#[test]
fn screen_without_colours_asks_for_none() {
    for (is_coloured, expected) in [(true, true), (false, false)] {
        let view = view(is_coloured);
        let mut terminal = Terminal::new(TestBackend::new(140, 30)).expect("a screen in memory");
        terminal.draw(|frame| draw(frame, &view)).expect("drawn");
        let has_colour = terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(has_colour, expected);
    }
}

#[test]
fn bars_are_exact_to_an_eighth() {
    assert_eq!(bar(0.0, 16), "················");
    assert_eq!(bar(1.0, 16), "████████████████");
    assert_eq!(bar(0.5 + 1.0 / 128.0, 16), "████████▏·······");
    assert_eq!(bar(f64::NAN, 16), bar(0.0, 16));
}

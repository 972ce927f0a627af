// Runs the kernel checks.
//
// With --isolate every family runs in a process of its own, watched from outside: a launch that does not come back or
// takes the process with it costs its own case, is named with its shape, and the rest of the family goes on without it.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdarg>
#include <ctime>
#include <map>
#include <set>

#include "timing.h"

void Check::begin(const char* format, ...) {
  char text[256];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  case_name = text;
  if (left_out) repeating = kept;
  explained = 0;
  outcomes.push_back({case_name, 14695981039346656037ull});
  left_out = observer && !observer->begin(*this);
  kept = repeating;
  // A case that is left out needs no reference.
  if (left_out) repeating = true;
}

namespace {

const char USAGE[] =
    "kernel-check [OPTION…] [FAMILY…]\n"
    "  --gpu DIR       on the first GPU, with the kernels of DIR/*.cubin; without it on the host model\n"
    "  --seeds N       runs of each family, 3 when absent     --small       only the smallest shapes\n"
    "  --repeat N      runs of each seed, equal to the bit    --verbose     what passed, too\n"
    "  --time FILE     time the kernels instead (of the groups gemm, attention, rows); JSON lines\n"
    "  --profile       each kernel worth it once, for a profiler\n"
    "  --isolate       a process for each family              --case N      only the case N of each family\n"
    "  --hang SECONDS  what a launch may take, isolated       --limit SECONDS  what everything may take, isolated\n"
    "  --plant hang|crash|KERNEL   on purpose, to see it reported: the second launch of each family hangs or crashes, or\n"
    "                  every launch of a kernel hangs\n";

struct Options {
  const char *gpu = nullptr, *times = nullptr;
  std::string plant;
  int seeds = 3, repeats = 1, only = -1;
  double hang = 0, limit = 0;
  bool small = false, verbose = false, isolate = false, profile = false;
  std::vector<std::string> wanted;

  bool wants(const char* family) const {
    for (const std::string& w : wanted)
      if (w == family) return true;
    return wanted.empty();
  }
};

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/// What a family has come to; in memory that its process shares with the one that watches it.
struct Progress {
  int seed_index, ordinal, launches, passed, failed;
  bool finished;
  /// When the launch in hand began; 0 while there is none.
  double since;
  char case_name[256], kernel[96], launch[256];
  /// Cases given up because they launch a kernel that ended others.
  int given_up;
};
/// What ended a process: cases by number, and how many times each kernel did.
struct Ended {
  std::set<int> cases;
  std::map<std::string, int> kernels;
};

/// The device of a watched run: says what it is doing, and leaves out the launches of cases that are left out.
class Watched : public Device, public Observer {
 public:
  Watched(Device& d, Progress& p, const std::string& how, const Ended& without, int from, int one)
      : inner(d), progress(p), plant(how), left_out(without), first(from), only(one) {}
  /// Counts go on from here in each run of a family.
  void restart(int passed, int failed) {
    progress.ordinal = -1;
    base_passed = passed, base_failed = failed;
  }
  void resumed() { first = 0; }
  /// In a run that times, every launch is a case.
  void each_launch_is_a_case() { by_launch = true; }

  bool begin(Check& c) override {
    current = &c;
    progress.passed = base_passed + c.passed, progress.failed = base_failed + c.failed;
    return enter(c.case_name);
  }
  std::string describe() override { return inner.describe(); }
  bool is_gpu() override { return inner.is_gpu(); }
  bool has_hopper() override { return inner.has_hopper(); }
  int multiprocessors() override { return inner.multiprocessors(); }
  void* allocate(size_t n) override { return inner.allocate(n); }
  void release(void* p) override { inner.release(p); }
  void upload(void* to, const void* from, size_t n) override { inner.upload(to, from, n); }
  void download(void* to, const void* from, size_t n) override { inner.download(to, from, n); }
  MapBytes map_2d(const void* base, uint64_t width, uint64_t height, uint64_t pitch, uint32_t box_width, uint32_t box_height) override {
    return inner.map_2d(base, width, height, pitch, box_width, box_height);
  }
  void launch(const LaunchSpec& s, void** arguments, int n) override {
    // Twice is no matter of a shape: the time is worth more elsewhere.
    if (!skip && ended_by(s.kernel) >= 2) {
      skip = current->left_out = true;
      progress.given_up++;
    }
    if (skip) return;
    say(s);
    inner.launch(s, arguments, n);
    progress.since = 0;
  }
  double time(const LaunchSpec& s, void** arguments, int n, int repeats) override {
    if (by_launch) enter(s.kernel);
    if (skip || ended_by(s.kernel)) return NAN;
    say(s);
    double seconds = inner.time(s, arguments, n, repeats);
    progress.since = 0;
    return seconds;
  }

 private:
  Device& inner;
  Progress& progress;
  std::string plant;
  Ended left_out;
  Check* current = nullptr;
  int first, only, base_passed = 0, base_failed = 0;
  bool skip = false, by_launch = false;

  int ended_by(const char* kernel) const {
    auto at = left_out.kernels.find(kernel);
    return at == left_out.kernels.end() ? 0 : at->second;
  }
  bool enter(const std::string& name) {
    const int at = ++progress.ordinal;
    snprintf(progress.case_name, sizeof progress.case_name, "%s", name.c_str());
    skip = at < first || left_out.cases.count(at) || (only >= 0 && at != only);
    return !skip;
  }
  void say(const LaunchSpec& s) {
    snprintf(progress.launch, sizeof progress.launch, "%s, grid %ux%ux%u, block %ux%ux%u, %zu bytes shared", s.kernel, s.grid.x, s.grid.y,
             s.grid.z, s.block.x, s.block.y, s.block.z, s.shared);
    snprintf(progress.kernel, sizeof progress.kernel, "%s", s.kernel);
    progress.since = now();
    // Every launch of one kernel, or the second launch of all.
    if (plant != s.kernel && (++progress.launches != 2 || (plant != "crash" && plant != "hang"))) return;
    if (plant == "crash") abort();
    while (plant == s.kernel) pause();
    while (plant == "hang") pause();
  }
};

Device* open(const Options& o) { return o.gpu ? open_gpu(o.gpu) : open_model(); }

// The seeds of a family from `progress.seed_index` on.
void run_family(const Family& f, const Options& o, Device& device, Watched* watched, Progress& progress) {
  int passed = progress.passed, failed = progress.failed;
  for (int s = progress.seed_index; s < o.seeds; s++) {
    progress.seed_index = s;
    if (watched) watched->restart(passed, failed);
    // The first seed runs threads in order, the others in a random order of their own.
    host::set_seed((uint64_t)s);
    Check c(device, (uint64_t)s + 1, o.small);
    c.verbose = o.verbose;
    c.observer = watched;
    f.run(c);
    int differing = 0;
    std::string first;
    for (int again = 1; again < o.repeats; again++) {
      if (watched) watched->restart(passed + c.passed, failed + c.failed);
      Check other(device, (uint64_t)s + 1, o.small);
      other.repeating = true;
      other.observer = watched;
      f.run(other);
      bool same = other.outcomes.size() == c.outcomes.size();
      for (size_t i = 0; same && i < c.outcomes.size(); i++)
        if (c.outcomes[i].hash != other.outcomes[i].hash) same = false, first = first.empty() ? c.outcomes[i].name : first;
      differing += !same;
      c.left_out = false;
      if (!same) c.case_name = first;
      c.expect(same, std::string(f.name) + ": two runs differ");
    }
    if (differing) printf("  %d of %d repeats of %s differ, first in %s\n", differing, o.repeats - 1, f.name, first.c_str());
    passed += c.passed, failed += c.failed;
    if (watched) watched->resumed();
    fflush(stdout);
  }
  progress.passed = passed, progress.failed = failed;
}

void say_result(const char* family, const Progress& p) {
  printf("%-16s %4d passed, %d failed", family, p.passed, p.failed);
  if (p.given_up) printf(", %d given up: they launch what ended others", p.given_up);
  printf("\n");
  fflush(stdout);
}

// What else a hanging process can tell, before it is ended: $MIDC_ON_HANG with its id as $1.
void ask_debugger(pid_t child) {
  const char* command = getenv("MIDC_ON_HANG");
  if (!command || !*command) return;
  pid_t asking = fork();
  if (asking == 0) {
    execlp("timeout", "timeout", "-k", "1", "15", "sh", "-c", command, "sh", std::to_string(child).c_str(), (char*)nullptr);
    _exit(127);
  }
  int status;
  if (asking > 0) waitpid(asking, &status, 0);
}

// Runs `work` in a process of its own, and again without the cases that ended it. Returns how many did.
template <class Work>
int isolated(const char* name, const Options& o, double deadline, Progress& progress, Work work) {
  Ended without;
  memset(&progress, 0, sizeof progress);
  double hang = o.hang > 0 ? o.hang : o.gpu ? 10 : 300;
  for (int from = 0;;) {
    progress.since = 0, progress.ordinal = -1, progress.launches = without.cases.empty() ? 0 : 2, progress.kernel[0] = progress.launch[0] = 0;
    fflush(stdout);
    fflush(stderr);
    const pid_t watcher = getpid(), child = fork();
    if (child < 0) return perror("fork"), 1;
    if (child == 0) {
      // No orphan keeps the GPU busy.
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != watcher) _exit(9);
      setvbuf(stdout, nullptr, _IOLBF, 0);
      Device& device = *open(o);
      Watched watched(device, progress, o.plant, without, from, o.only);
      if (without.cases.empty()) printf("device: %s\n", device.describe().c_str());
      work(watched);
      progress.finished = true;
      fflush(stdout);
      exit(0);
    }
    int status = 0;
    std::string why;
    bool over = false;
    while (waitpid(child, &status, WNOHANG) == 0) {
      usleep(5000);
      const double since = progress.since, t = now();
      over = deadline > 0 && t > deadline;
      if (!over && !(since > 0 && t - since > hang)) continue;
      why = over ? "the time is over" : "no answer in " + std::to_string((int)hang) + " s";
      if (!over && without.cases.empty()) ask_debugger(child);
      kill(child, SIGKILL);
      waitpid(child, &status, 0);
      break;
    }
    if (why.empty() && progress.finished) return (int)without.cases.size();
    if (why.empty())
      why = WIFSIGNALED(status) ? std::string("ended by signal ") + std::to_string(WTERMSIG(status)) + ", " + strsignal(WTERMSIG(status))
                                : "ended with status " + std::to_string(WEXITSTATUS(status));
    printf("%s %s: case %d, %s, seed %d: %s%s%s\n", over ? "LIMIT" : progress.since > 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? "HANG" : "CRASH",
           name, progress.ordinal, progress.ordinal < 0 ? "before any" : progress.case_name, progress.seed_index + 1, why.c_str(),
           progress.launch[0] ? "; last launch " : "", progress.launch);
    without.cases.insert(progress.ordinal);
    if (progress.kernel[0]) without.kernels[progress.kernel]++;
    // Out of time, no case to leave out, or a device past help.
    if (over || progress.ordinal < 0 || without.cases.size() == 12) {
      printf("STOPPED %s: what is left of it was not run\n", name);
      return (int)without.cases.size();
    }
    // Whoever repeats begins again, so that every run has the same cases.
    from = o.repeats > 1 ? 0 : progress.ordinal + 1;
  }
}

int run_isolated(const Options& o) {
  void* memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return perror("mmap"), 2;
  Progress& progress = *(Progress*)memory;
  const double deadline = o.limit > 0 ? now() + o.limit : 0;
  if (o.times) {
    remove(o.times);
    return isolated("times", o, deadline, progress, [&](Watched& device) {
             device.each_launch_is_a_case();
             time_kernels(device, o.times, o.profile, o.wanted);
           }) > 0;
  }
  std::vector<const Family*> families;
  // In the order they were asked for.
  for (const std::string& name : o.wanted)
    for (Family* f = Family::first(); f; f = f->next)
      if (name == f->name) families.push_back(f);
  for (Family* f = Family::first(); f && o.wanted.empty(); f = f->next) families.push_back(f);
  if (families.empty()) return fprintf(stderr, "no such family of checks\n"), 2;
  int passed = 0, failed = 0, ended = 0;
  for (const Family* f : families) {
    if (deadline > 0 && now() > deadline) {
      printf("NOT RUN %s: the time is over\n", f->name);
      ended++;
      continue;
    }
    ended += isolated(f->name, o, deadline, progress, [&](Watched& device) { run_family(*f, o, device, &device, progress); });
    say_result(f->name, progress);
    passed += progress.passed, failed += progress.failed;
  }
  printf("%d passed, %d failed, %d ended early\n", passed, failed, ended);
  return failed || ended ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i++) {
    std::string a = argv[i];
    const bool more = i + 1 < argc;
    if (a == "--gpu" && more)
      o.gpu = argv[++i];
    else if (a == "--seeds" && more)
      o.seeds = atoi(argv[++i]);
    else if (a == "--repeat" && more)
      o.repeats = atoi(argv[++i]);
    else if (a == "--time" && more)
      o.times = argv[++i];
    else if (a == "--case" && more)
      o.only = atoi(argv[++i]);
    else if (a == "--hang" && more)
      o.hang = atof(argv[++i]);
    else if (a == "--limit" && more)
      o.limit = atof(argv[++i]);
    else if (a == "--plant" && more)
      o.plant = argv[++i];
    else if (a == "--small")
      o.small = true;
    else if (a == "--verbose")
      o.verbose = true;
    else if (a == "--isolate")
      o.isolate = true;
    else if (a == "--profile")
      o.profile = true;
    else if (a[0] == '-')
      return fprintf(stderr, "%s", USAGE), 2;
    else
      o.wanted.push_back(a);
  }
  if (o.isolate) return run_isolated(o);
  Device* device = open(o);
  printf("device: %s\n", device->describe().c_str());
  if (o.times) {
    remove(o.times);
    Progress progress = {};
    Watched watched(*device, progress, o.plant, Ended(), 0, o.only);
    watched.restart(0, 0);
    watched.each_launch_is_a_case();
    return time_kernels(watched, o.times, o.profile, o.wanted), 0;
  }
  int passed = 0, failed = 0, families = 0;
  for (Family* f = Family::first(); f; f = f->next) {
    if (!o.wants(f->name)) continue;
    families++;
    Progress progress = {};
    Watched watched(*device, progress, o.plant, Ended(), 0, o.only);
    if (o.only >= 0)
      run_family(*f, o, watched, &watched, progress);
    else
      run_family(*f, o, *device, nullptr, progress);
    say_result(f->name, progress);
    passed += progress.passed, failed += progress.failed;
  }
  if (families == 0) return fprintf(stderr, "no such family of checks\n"), 2;
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

/**
 * What a benchmark has made and must take away again, whatever happens: an error, Ctrl-C, a signal. Processes are started
 * here and nowhere else, so that none is forgotten; each also dies by itself when this one is killed (PR_SET_PDEATHSIG).
 */
import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';

/** Same file system as /var/lib, so that what must be durable costs here what it costs there. */
const TEMP = '/var/tmp';
const PREFIX = 'weft-bench-';
const NETNS_FOLDER = '/run/netns';
const NETNS_PREFIX = 'weftbench-';

export interface Finished {
  stdout: string;
  stderr: string;
  /** Wall time in milliseconds. */
  millis: number;
}

/** The name in /run/netns of a namespace of this run. */
export function netnsName(part: string): string {
  return `${NETNS_PREFIX}${process.pid}-${part}`;
}

export class Scope implements AsyncDisposable {
  readonly #undo: Array<{ what: string; fn: () => unknown }> = [];
  readonly #abort = new AbortController();

  constructor() {
    removeStale();
    const stop = (name: NodeJS.Signals): void => {
      this.#abort.abort(new Error(`stopped by ${name}`));
    };
    for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      const listener = (): void => stop(name);
      process.on(name, listener);
      this.defer(`listener for ${name}`, () => process.off(name, listener));
    }
  }

  /** Aborted by SIGINT and its kin. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** @throws the reason when the user has asked to stop */
  check(): void {
    this.#abort.signal.throwIfAborted();
  }

  /** Run at the end, last in first out. */
  defer(what: string, fn: () => unknown): void {
    this.#undo.push({ what, fn });
  }

  /** A folder of this run, removed at the end. */
  folder(name: string): string {
    const folder = mkdtempSync(path.join(TEMP, `${PREFIX}${process.pid}-${name}-`));
    this.defer(`remove ${folder}`, () => rmSync(folder, { recursive: true, force: true }));
    return folder;
  }

  /** Start a program that runs until {@link stop} or the end of the scope. A session of its own: Ctrl-C is ours to handle. */
  start(argv: string[], options: SpawnOptions = {}): ChildProcess {
    this.check();
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...argv], { ...options, detached: true });
    child.on('error', () => {}); // it is reported by whoever waits for the process
    this.defer(`stop ${argv.join(' ')}`, () => stop(child));
    return child;
  }

  /** Run a program to its end. @throws Error with what it wrote, when it fails, is stopped, or takes longer than `timeout` ms */
  async run(
    argv: string[],
    options: { timeout?: number; env?: Record<string, string>; stdin?: string } = {},
  ): Promise<Finished> {
    this.check();
    return await run(argv, { ...options, signal: this.signal });
  }

  /** @throws the reason when the user has asked to stop */
  async sleep(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, ms);
      const { signal } = this;
      function done(): void {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      }
      signal.addEventListener('abort', done);
    });
    this.check();
  }

  /** Poll until `probe` gives something. @throws Error naming `what` after `timeout` ms */
  async until<T>(
    what: string,
    timeout: number,
    probe: () => T | undefined | Promise<T | undefined>,
  ): Promise<T> {
    const end = Date.now() + timeout;
    for (;;) {
      this.check();
      const value = await probe();
      if (value !== undefined) return value;
      if (Date.now() > end) throw new Error(`${what}: not within ${timeout / 1000} s`);
      await this.sleep(20);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const failed: unknown[] = [];
    for (const { what, fn } of this.#undo.splice(0).reverse()) {
      try {
        await fn();
      } catch (error) {
        failed.push(new Error(`cannot ${what}`, { cause: error }));
      }
    }
    if (failed.length > 0) throw new AggregateError(failed, failed.map(String).join('; '));
  }
}

/** Outside of any scope, e.g. to take things away when the scope ends. */
export async function run(
  argv: string[],
  options: { timeout?: number; env?: Record<string, string>; stdin?: string; signal?: AbortSignal } = {},
): Promise<Finished> {
  const { timeout = 60_000, signal } = options;
  const began = process.hrtime.bigint();
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...argv], {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(options.env && { env: { ...process.env, ...options.env } }),
  });
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (chunk: string) => {
      text[name] += chunk;
    });
  }
  child.stdin.on('error', () => {}); // it may end without reading all
  child.stdin.end(options.stdin ?? '');
  let late = false;
  const kill = (): void => void stop(child);
  const timer = setTimeout(() => {
    late = true;
    kill();
  }, timeout);
  signal?.addEventListener('abort', kill);
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    const millis = Number(process.hrtime.bigint() - began) / 1e6;
    signal?.throwIfAborted();
    if (late) throw new Error(`${argv.join(' ')}: still running after ${timeout / 1000} s`);
    if (code !== 0) {
      throw new Error(`${argv.join(' ')}: exit code ${code}: ${(text.stderr || text.stdout).trim()}`);
    }
    return { ...text, millis };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', kill);
  }
}

/** End a process of ours and whatever it started in its session: politely, then after two seconds not. */
export async function stop(child: ChildProcess): Promise<void> {
  const { pid } = child;
  if (pid === undefined) return;
  const signalGroup = (name: NodeJS.Signals): void => {
    try {
      process.kill(-pid, name);
    } catch {
      // Nobody of it is left.
    }
  };
  if (child.exitCode === null && child.signalCode === null) {
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    signalGroup('SIGTERM');
    const timer = setTimeout(() => signalGroup('SIGKILL'), 2000);
    await gone;
    clearTimeout(timer);
    signalGroup('SIGKILL'); // what it had started
  }
}

/** What a run that was killed left behind is known by its process id. */
function removeStale(): void {
  const left = (folder: string, prefix: string): string[] =>
    (existsSync(folder) ? readdirSync(folder) : []).filter((name) => {
      const pid = name.startsWith(prefix) && /^\d+(?=-)/.exec(name.slice(prefix.length))?.[0];
      return pid && !existsSync(`/proc/${pid}`);
    });
  for (const name of left(TEMP, PREFIX)) rmSync(path.join(TEMP, name), { recursive: true, force: true });
  for (const name of left(NETNS_FOLDER, NETNS_PREFIX)) {
    try {
      execFileSync('ip', ['netns', 'delete', name], { stdio: 'ignore' });
    } catch {
      // Another run was quicker.
    }
  }
}

/**
 * One run of one container: started through weft-init (see lab/weft-init.c), found again after the daemon died, stopped, and its
 * exit learned from the file that weft-init leaves.
 *
 *   <run>/<container>/<n>/      pid, exit, error (weft-init), started (this file)
 *   <state>/<container>/<n>.log what it wrote
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { HOME } from '../paths.ts';
import { isAlive, type ProcessId, signal, spawnDetached, startTimeOf } from '../processes.ts';

export const WEFT_INIT = path.join(HOME, 'build/weft-init');

export interface ContainerExit {
  exitCode: number;
  /** Milliseconds since the epoch. */
  finishedAt: number;
  reason: 'Completed' | 'Error' | 'StartError' | 'ContainerStatusUnknown';
  message?: string;
}

export interface ContainerFolders {
  /** Of the container: one folder per run. */
  run: string;
  /** Of the container: one log per run. */
  logs: string;
}

export interface StartOptions {
  lab: string;
  /** Mark of the process, e.g. `pod/<uid>/<container>`. */
  role: string;
  number: number;
  command: string[];
  env: Record<string, string>;
  cwd: string;
  namespaces: { net: string; uts: string; ipc?: string; mnt: string };
}

export class ContainerRun {
  /** 0 for the first run. */
  readonly number: number;
  readonly startedAt: number;
  readonly #folder: string;
  readonly #id: ProcessId | undefined;
  #exit: ContainerExit | undefined;
  /** Resolves when the run is over, with its end. */
  readonly exited: Promise<ContainerExit>;

  private constructor(
    folder: string,
    number: number,
    startedAt: number,
    id: ProcessId | undefined,
    over: Promise<void>,
  ) {
    this.number = number;
    this.startedAt = startedAt;
    this.#folder = folder;
    this.#id = id;
    this.exited = over.then(() => {
      this.#exit = readExit(folder);
      return this.#exit;
    });
  }

  static start(folders: ContainerFolders, options: StartOptions): ContainerRun {
    const folder = `${folders.run}/${options.number}`;
    const startedAt = Date.now();
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${folder}/started`, String(startedAt));
    const { net, uts, ipc, mnt } = options.namespaces;
    const child = spawnDetached(
      [
        WEFT_INIT,
        ...['--dir', folder, '--net', net, '--uts', uts],
        ...(ipc ? ['--ipc', ipc] : []),
        ...['--mnt', mnt, '--cwd', options.cwd, '--', ...options.command],
      ],
      { lab: options.lab, role: options.role, log: logFile(folders, options.number), env: options.env },
    );
    const over = new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', (error) => {
        writeFileSync(`${folder}/error`, error.message);
        writeFileSync(`${folder}/exit`, `128 ${Date.now()}`);
        resolve();
      });
    });
    const startTime = child.pid === undefined ? undefined : startTimeOf(child.pid);
    const id = child.pid === undefined || startTime === undefined ? undefined : { pid: child.pid, startTime };
    return new ContainerRun(folder, options.number, startedAt, id, over);
  }

  /** The last run that left something, alive or not. */
  static last(folders: ContainerFolders): ContainerRun | undefined {
    const number = lastNumber(folders);
    if (number < 0) return undefined;
    const folder = `${folders.run}/${number}`;
    const startedAt = Number(readText(`${folder}/started`)) || modified(logFile(folders, number));
    const pid = readPid(folder);
    const id = pid && isAlive(pid.outer) ? pid.outer : undefined;
    return new ContainerRun(folder, number, startedAt, id, id ? ended(id) : Promise.resolve());
  }

  /** Undefined while it runs. */
  get exit(): ContainerExit | undefined {
    return this.#exit;
  }

  /** PID 1 of the container, as this machine numbers it: the door to its namespaces. Undefined when it does not run. */
  get initPid(): number | undefined {
    if (this.#exit) return undefined;
    return readPid(this.#folder)?.init;
  }

  get containerId(): string {
    return `weft://${path.basename(path.dirname(path.dirname(this.#folder)))}/${path.basename(path.dirname(this.#folder))}/${this.number}`;
  }

  /** SIGTERM, and SIGKILL when `graceMs` have passed or `hurry` is aborted. Resolves when it is gone. */
  async stop(graceMs: number, hurry?: AbortSignal): Promise<ContainerExit> {
    const id = this.#id;
    if (!id || this.#exit) return await this.exited;
    if (graceMs > 0 && !hurry?.aborted) {
      signal(id, 'SIGTERM');
      await before(this.exited, graceMs, hurry);
    }
    if (!this.#exit) {
      signal(id, 'SIGUSR2');
      await before(this.exited, 2_000);
    }
    if (!this.#exit) signal(id, 'SIGKILL');
    return await this.exited;
  }
}

/** -1 when it never ran. The logs are durable, so the count outlives a reboot. */
export function lastNumber(folders: ContainerFolders): number {
  const numbers = (folder: string): number[] => {
    try {
      return readdirSync(folder).map((name) => Number.parseInt(name, 10));
    } catch {
      return [];
    }
  };
  return Math.max(
    -1,
    ...numbers(folders.logs).filter(Number.isInteger),
    ...numbers(folders.run).filter(Number.isInteger),
  );
}

export function logFile(folders: ContainerFolders, number: number): string {
  return `${folders.logs}/${number}.log`;
}

/** Keep the traces of the last two runs, as kubelet keeps one dead container. */
export function pruneRuns(folders: ContainerFolders, current: number): void {
  for (let number = current - 2; number >= 0 && number > current - 20; number--) {
    rmSync(logFile(folders, number), { force: true });
    rmSync(`${folders.run}/${number}`, { recursive: true, force: true });
  }
}

function readExit(folder: string): ContainerExit {
  const [code, at] = (readText(`${folder}/exit`) ?? '').split(' ');
  if (!code) {
    return {
      exitCode: 137,
      finishedAt: Date.now(),
      reason: 'ContainerStatusUnknown',
      message: 'The container could not be located when its process was looked for',
    };
  }
  const exitCode = Number(code);
  const message = readText(`${folder}/error`);
  const reason = message === undefined ? (exitCode === 0 ? 'Completed' : 'Error') : 'StartError';
  return { exitCode, finishedAt: Number(at), reason, ...(message !== undefined && { message }) };
}

/** What weft-init wrote; undefined if it did not, or before another boot of this machine. */
function readPid(folder: string): { outer: ProcessId; init: number } | undefined {
  const [boot, pid, startTime, init] = (readText(`${folder}/pid`) ?? '').trim().split(' ');
  if (!init || boot !== bootId()) return undefined;
  return { outer: { pid: Number(pid), startTime: startTime! }, init: Number(init) };
}

let boot: string | undefined;
function bootId(): string {
  boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return boot;
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function modified(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
}

async function before(done: Promise<unknown>, ms: number, hurry?: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const given = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
    onAbort = resolve;
    hurry?.addEventListener('abort', onAbort, { once: true });
  });
  await Promise.race([done, given]);
  clearTimeout(timer);
  if (onAbort) hurry?.removeEventListener('abort', onAbort);
}

/** Processes that are not our children do not tell us when they end: one timer looks after all of them. */
const watched = new Set<{ id: ProcessId; resolve: () => void }>();
let timer: NodeJS.Timeout | undefined;

export function ended(id: ProcessId): Promise<void> {
  return new Promise((resolve) => {
    watched.add({ id, resolve });
    timer ??= setInterval(() => {
      for (const entry of watched) {
        if (isAlive(entry.id)) continue;
        watched.delete(entry);
        entry.resolve();
      }
      if (watched.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    }, 50).unref();
  });
}

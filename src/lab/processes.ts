/**
 * Processes of a lab, found in /proc: by the mark in their environment or by the network namespace that they are in. No list is
 * kept anywhere, so none can be wrong after a crash.
 *
 * A pid alone says nothing after its process ended; with the start time (proc(5), field 22, in clock ticks since boot) it is
 * an identity.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import path from 'node:path';
import { NETNS, PROCESS_MARK } from './paths.ts';

export interface ProcessId {
  pid: number;
  /** As text: it is only ever compared. */
  startTime: string;
}

export interface LabProcess extends ProcessId {
  /** The mark without the lab's name, e.g. `agent/node-1`; '' for a process found by its namespace alone. */
  role: string;
  command: string;
}

/** Start time and state of a process; undefined when it is gone. A zombie counts as gone. */
export function startTimeOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name, in parentheses, may contain anything: fields are counted after the last ')'.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export function isAlive(id: ProcessId): boolean {
  return startTimeOf(id.pid) === id.startTime;
}

/** Signal exactly this process; false when it is gone. */
export function signal(id: ProcessId, name: NodeJS.Signals): boolean {
  if (!isAlive(id)) return false;
  try {
    return process.kill(id.pid, name);
  } catch {
    return false;
  }
}

/** Every process of the lab but this one. */
export function findProcesses(lab: string): LabProcess[] {
  const prefix = `${PROCESS_MARK}=${lab}/`;
  const namespaces = new Set(
    netnsOf(lab).map((name) => statSync(`${NETNS}/${name}`, { throwIfNoEntry: false })?.ino),
  );
  namespaces.delete(undefined);
  const own = statSync('/proc/self/ns/net').ino;
  const found: LabProcess[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'latin1');
      const at = environment.startsWith(prefix) ? 0 : environment.indexOf(`\0${prefix}`) + 1;
      const marked = at > 0 || environment.startsWith(prefix);
      let role = '';
      if (marked) {
        const end = environment.indexOf('\0', at);
        role = environment.slice(at + prefix.length, end < 0 ? undefined : end);
      } else {
        const inode = Number(/\d+/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[0]);
        if (inode === own || !namespaces.has(inode)) continue;
      }
      const startTime = startTimeOf(pid);
      if (startTime === undefined) continue;
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      found.push({ pid, startTime, role, command });
    } catch {
      // It ended while we looked, or it is a kernel thread.
    }
  }
  return found;
}

/** Names in /run/netns that are the lab's. */
export function netnsOf(lab: string): string[] {
  try {
    return readdirSync(NETNS).filter((name) => name.startsWith(`weft-${lab}-`));
  } catch {
    return [];
  }
}

/** Kill -9 all of them, again and again until a look finds none; what is left after `deadline` milliseconds is returned. */
export async function killAll(
  lab: string,
  deadline: number,
  except: (found: LabProcess) => boolean = () => false,
): Promise<LabProcess[]> {
  const end = Date.now() + deadline;
  for (;;) {
    const left = findProcesses(lab).filter((found) => !except(found));
    if (left.length === 0) return [];
    // The outer process of a container takes the whole container with it; anything else dies by itself.
    for (const found of left) signal(found, 'SIGKILL');
    if (Date.now() > end) return left;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

export interface DetachedOptions {
  lab: string;
  /** e.g. `agent/node-1`. */
  role: string;
  /** Appended to; receives stdout and stderr. */
  log: string;
  env?: Record<string, string | undefined>;
  /** Descriptors that become 3, 4, … of the process. */
  fds?: number[];
  cwd?: string;
}

/** Start a process that outlives this one: a session of its own, output to a file. */
export function spawnDetached(argv: string[], options: DetachedOptions): ChildProcess {
  mkdirSync(path.dirname(options.log), { recursive: true });
  const log = openSync(options.log, 'a', 0o640);
  try {
    const child = spawn(argv[0]!, argv.slice(1), {
      detached: true,
      cwd: options.cwd ?? '/',
      stdio: ['ignore', log, log, ...(options.fds ?? [])],
      env: { ...(options.env ?? process.env), [PROCESS_MARK]: `${options.lab}/${options.role}` },
    });
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

/** How a program is entered into a node: one process, which becomes the program. */
export function enterArgs(node: { netns: string; mnt: string; uts: string }): string[] {
  return ['nsenter', `--net=${node.netns}`, `--uts=${node.uts}`, `--mount=${node.mnt}`, '--'];
}

/**
 * Removing a lab: everything that bears its name, whatever state it is in and whether its record is there or not. Says that it is
 * gone only after looking.
 */
import { readdirSync, rmSync } from 'node:fs';
import { messageOf } from '../base/errors.ts';
import { openKernel } from '../kernel/kernel.ts';
import type { Progress } from './control.ts';
import { mountPoints, removeHostFolders, unbindBelow } from './namespaces.ts';
import { type LabPaths, labPaths, NETNS, PROCESS_MARK } from './paths.ts';
import { findProcesses, killAll, netnsOf, signal } from './processes.ts';
import { listLabs } from './record.ts';

/** What there is of a lab on this machine. */
export interface Traces {
  processes: Array<{ pid: number; role: string; command: string }>;
  namespaces: string[];
  mounts: string[];
  files: string[];
}

export interface Destroyed {
  /** Found when we began. */
  found: Traces;
  /** Found after all was removed: empty, or what could not be removed. */
  left: Traces;
  gone: boolean;
}

export function labTraces(name: string): Traces {
  const paths = labPaths(name);
  return {
    processes: findProcesses(name).map(({ pid, role, command }) => ({ pid, role, command })),
    namespaces: netnsOf(name).map((each) => `${NETNS}/${each}`),
    mounts: mountPoints()
      .map((mount) => mount.path)
      .filter((path) => path === paths.run || path.startsWith(`${paths.run}/`)),
    files: [paths.run, paths.state].filter(exists),
  };
}

export function countTraces(traces: Traces): number {
  return Object.values(traces).reduce((sum, list: unknown[]) => sum + list.length, 0);
}

/** Idempotent; never throws for what is merely gone already. @throws WEFT_BAD_CONFIG for a wrong name, WEFT_NOT_ROOT */
export async function destroyLab(name: string, progress: Progress = () => {}): Promise<Destroyed> {
  const paths = labPaths(name);
  const found = labTraces(name);
  if (countTraces(found) === 0) return { found, left: found, gone: true };
  const kernel = await openKernel();
  try {
    // Twice, if need be: a process that was just being started when we looked may have made something since.
    for (let round = 1; ; round++) {
      await sweep(paths, kernel, progress);
      const left = labTraces(name);
      if (countTraces(left) === 0) {
        if (listLabs().length === 0) removeHostFolders();
        return { found, left, gone: true };
      }
      if (round === 3) return { found, left, gone: false };
    }
  } finally {
    await kernel[Symbol.asyncDispose]();
  }
}

async function sweep(
  paths: LabPaths,
  kernel: { netnsDelete(path: string): Promise<boolean> },
  progress: Progress,
): Promise<void> {
  const { lab } = paths;
  // The daemon first: it would start again what we stop. Its own children bear its mark too.
  for (const each of findProcesses(lab)) if (each.role === 'daemon') signal(each, 'SIGKILL');
  const own = process.env[PROCESS_MARK];
  if (own?.startsWith(`${lab}/`)) throw new Error('a process of a lab cannot remove that lab');
  const count = findProcesses(lab).length;
  const stubborn = await killAll(lab, 10_000);
  if (count > 0) progress(`${count - stubborn.length} processes ended`);
  const names = netnsOf(lab);
  await Promise.all(
    names.map((name) =>
      kernel.netnsDelete(`${NETNS}/${name}`).catch((error) => progress(`${name}: ${messageOf(error)}`)),
    ),
  );
  if (names.length > 0) progress(`${names.length} network namespaces removed`);
  await unbindBelow(paths.run);
  for (const folder of [paths.run, paths.state])
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  progress('mounts and files removed');
}

function exists(folder: string): boolean {
  try {
    readdirSync(folder);
    return true;
  } catch {
    return false;
  }
}

/** /proc/sys within a namespace: what it shows depends on the namespace of the thread that opens it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { WeftError } from '../base/errors.ts';
import type { NsPath } from '../base/net-objects.ts';
import { withNetns } from './netns.ts';

/** Path below /proc/sys, `/` for `.`; interface names may hold dots, which is why the dotted form is not taken. */
function sysctlFile(key: string): string {
  const parts = key.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..') || key.includes('\0')) {
    throw new WeftError('WEFT_BAD_CONFIG', `sysctl ${JSON.stringify(key)} is not a path below /proc/sys`);
  }
  return `/proc/sys/${key}`;
}

/** @throws WEFT_NETNS_NOT_FOUND, and the errno of the file as WEFT_SYSCALL_FAILED */
export function readSysctl(ns: NsPath, key: string): string {
  const file = sysctlFile(key);
  return withNetns(ns, () => attempt(`sysctl ${key}`, () => readFileSync(file, 'utf8').trimEnd()));
}

export function writeSysctl(ns: NsPath, key: string, value: string | number): void {
  withNetns(ns, () => writeSysctlHere(key, value));
}

/** In the namespace the thread is in: for several writes in one visit. */
export function writeSysctlHere(key: string, value: string | number): void {
  const file = sysctlFile(key);
  attempt(`sysctl ${key} = ${value}`, () => writeFileSync(file, `${value}`));
}

function attempt<T>(what: string, fn: () => T): T {
  try {
    return fn();
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException;
    if (code === undefined || errno === undefined) throw error;
    throw new WeftError('WEFT_SYSCALL_FAILED', `${what}: ${code}`, {
      details: { errno: -errno, errnoName: code },
      cause: error,
    });
  }
}

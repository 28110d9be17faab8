/** Namespaces for a test file: made with a prefix of their own, removed at the end, and proven gone. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { createNetns, deleteNetns, listNetns, NETNS_FOLDER } from '../netns.ts';

export class ScratchNamespaces {
  readonly prefix: string;
  #next = 0;

  /** `label` tells the test files apart; the pid tells runs apart. */
  constructor(label: string) {
    this.prefix = `wt-${label}-${process.pid}-`;
  }

  /** A path under /run/netns that no one else has. */
  path(): string {
    return `${NETNS_FOLDER}/${this.prefix}${this.#next++}`;
  }

  create(): string {
    const nsPath = this.path();
    createNetns(nsPath);
    return nsPath;
  }

  /** Remove every namespace of this prefix. */
  remove(): void {
    for (const name of this.#left()) deleteNetns(`${NETNS_FOLDER}/${name}`);
    assert.deepEqual(this.#left(), []);
  }

  #left(): string[] {
    return listNetns().filter((name) => name.startsWith(this.prefix));
  }
}

/** `ip -n <name of ns> …`, without JSON. */
export function ip(ns: string, ...args: string[]): string {
  return execFileSync('ip', ['-n', path.basename(ns), ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

/** `ip -n <ns> -d -j …`. */
export function ipJson(ns: string, ...args: string[]): Array<Record<string, unknown>> {
  return JSON.parse(ip(ns, '-d', '-j', ...args) || '[]');
}

/** `bridge -n <ns> -d -j fdb`. */
export function bridgeFdb(ns: string): Array<Record<string, unknown>> {
  return JSON.parse(
    execFileSync('bridge', ['-n', path.basename(ns), '-d', '-j', 'fdb'], { encoding: 'utf8' }) || '[]',
  );
}

/** Numbers of the open descriptors of this process, the one used for looking left out. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length - 1;
}

/** Wait until `condition` holds. @throws after `ms`, naming `what` */
export async function until(what: string, condition: () => boolean, ms = 5000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > deadline) assert.fail(`after ${ms} ms still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

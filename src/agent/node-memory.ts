/**
 * What the agent learned of its node, kept beside the attachments, so that pods can come and go while the API is away, also
 * after a restart of the agent.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { type Cidr, canonicalCidr } from '../base/ip.ts';

export interface NodeMemory {
  podCIDRs: Cidr[];
  podMtu: number;
}

/** Undefined when there is none, or nothing that can be read: the API will tell again. */
export function recallNode(file: string): NodeMemory | undefined {
  try {
    const value = JSON.parse(readFileSync(file, 'utf8')) as Partial<NodeMemory>;
    const podCIDRs = value.podCIDRs?.map(canonicalCidr);
    if (!podCIDRs?.length || !Number.isInteger(value.podMtu) || value.podMtu! < 576) return undefined;
    return { podCIDRs, podMtu: value.podMtu! };
  } catch {
    return undefined;
  }
}

/** Atomic: a crash leaves the old or the new one. */
export function rememberNode(file: string, memory: NodeMemory): void {
  const temporary = `${file}.${randomBytes(4).toString('hex')}`;
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    writeSync(fd, JSON.stringify(memory));
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, file);
}

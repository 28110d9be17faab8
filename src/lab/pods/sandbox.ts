/**
 * The sandbox of a pod: the namespaces that its containers share, attached to the network by the node's CNI plugins. What is made
 * is written down first, so that whoever finds the record can take it back.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { Pod } from '../../api/types.ts';
import { isWeftError, messageOf } from '../../base/errors.ts';
import { type Ip, parseCidr } from '../../base/ip.ts';
import type { Kernel } from '../../kernel/types.ts';
import { ensurePodNamespaces, isNamespace, removePodNamespaces } from '../namespaces.ts';
import type { LabPaths } from '../paths.ts';
import { enterArgs } from '../processes.ts';
import {
  type CniCall,
  CniError,
  type CniResult,
  CniRuntime,
  type NetworkConfig,
  readNetworkConfig,
} from './cni.ts';

export interface SandboxRecord {
  pod: { uid: string; namespace: string; name: string; hostname: string };
  node: string;
  hostNetwork: boolean;
  /** CNI_CONTAINERID: new for each attempt, as a runtime's sandbox ids are. */
  id: string;
  /** Of the network namespace; tells ours from another of the same path after a reboot. */
  inode?: number;
  config?: NetworkConfig;
  call?: CniCall;
  result?: CniResult;
  /** Attached: everything above is final. */
  ready: boolean;
}

export interface Sandbox {
  record: SandboxRecord;
  /** IPv4 first. */
  ips: Ip[];
  namespaces: { net: string; uts: string; ipc?: string; mnt: string };
}

export class SandboxManager {
  readonly #kernel: Pick<Kernel, 'netnsCreate' | 'netnsDelete' | 'netnsInfo'>;
  readonly #paths: LabPaths;

  constructor(kernel: Pick<Kernel, 'netnsCreate' | 'netnsDelete' | 'netnsInfo'>, paths: LabPaths) {
    this.#kernel = kernel;
    this.#paths = paths;
  }

  /** The pod's sandbox: the one that is there if it is whole, else a new one. @throws CniError, WeftError */
  async ensure(pod: Pod, nodeIPs: Ip[]): Promise<Sandbox> {
    const uid = pod.metadata.uid!;
    const found = this.read(uid);
    if (found?.ready && (await this.#isWhole(found))) return this.#sandbox(found, nodeIPs);
    if (found) await this.remove(found);
    const record: SandboxRecord = {
      pod: {
        uid,
        namespace: pod.metadata.namespace ?? 'default',
        name: pod.metadata.name,
        hostname: (pod.spec.hostname ?? pod.metadata.name).slice(0, 63),
      },
      node: pod.spec.nodeName!,
      hostNetwork: pod.spec.hostNetwork === true,
      id: randomBytes(32).toString('hex'),
      ready: false,
    };
    if (!record.hostNetwork) await this.#attach(record, pod);
    record.ready = true;
    this.#write(record);
    return this.#sandbox(record, nodeIPs);
  }

  async #attach(record: SandboxRecord, pod: Pod): Promise<void> {
    const { uid, namespace, name, hostname } = record.pod;
    const node = this.#paths.node(record.node);
    const netns = this.#paths.podNetns(uid);
    record.config = readNetworkConfig(node.cniConf);
    const portMappings = pod.spec.containers
      .flatMap((container) => container.ports ?? [])
      .filter((port) => port.hostPort)
      .map(({ hostPort, containerPort, protocol = 'TCP', hostIP }) => ({
        hostPort,
        containerPort,
        protocol: protocol.toLowerCase(),
        ...(hostIP && { hostIP }),
      }));
    record.call = {
      containerId: record.id,
      netns,
      ifname: 'eth0',
      args: {
        IgnoreUnknown: '1',
        K8S_POD_NAMESPACE: namespace,
        K8S_POD_NAME: name,
        K8S_POD_INFRA_CONTAINER_ID: record.id,
        K8S_POD_UID: uid,
      },
      ...(portMappings.length > 0 && { capabilities: { portMappings } }),
    };
    this.#write(record);
    const [info] = await Promise.all([
      this.#freshNetns(netns),
      ensurePodNamespaces(hostname, this.#paths.podNamespaces(uid)),
    ]);
    record.inode = info.inode;
    this.#write(record);
    try {
      record.result = await this.#runtime(record).add(record.config, record.call);
    } catch (error) {
      // The specification asks for a DEL after a failed ADD; its own failure is told by the retry, which starts with one.
      await this.#runtime(record)
        .del(record.config, record.call, undefined)
        .catch(() => {});
      throw error;
    }
  }

  async #freshNetns(path: string): Promise<{ inode: number }> {
    try {
      return await this.#kernel.netnsCreate(path);
    } catch (error) {
      if (!isWeftError(error, 'WEFT_NETNS_EXISTS')) throw error;
      await this.#kernel.netnsDelete(path);
      return await this.#kernel.netnsCreate(path);
    }
  }

  /** Detach and remove everything of it; idempotent. @throws CniError when a plugin refuses: then nothing else is removed */
  async remove(record: SandboxRecord): Promise<void> {
    const { uid } = record.pod;
    if (!record.hostNetwork) {
      if (record.config && record.call && isNamespace(this.#paths.node(record.node).mnt)) {
        const there = await this.#isWhole(record, false);
        // After a reboot the namespace is gone, and its path may be another pod's: DEL then comes without one (SPEC, DEL).
        const call = there ? record.call : { ...record.call, netns: '' };
        await this.#runtime(record).del(record.config, call, record.result);
      }
      await this.#kernel.netnsDelete(this.#paths.podNetns(uid));
      await removePodNamespaces(this.#paths.podNamespaces(uid));
    }
  }

  read(uid: string): SandboxRecord | undefined {
    try {
      return JSON.parse(readFileSync(`${this.#paths.podState(uid)}/sandbox.json`, 'utf8')) as SandboxRecord;
    } catch {
      return undefined; // never made, or the machine stopped before the first record was whole: then nothing was made yet
    }
  }

  #write(record: SandboxRecord): void {
    const folder = this.#paths.podState(record.pod.uid);
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${folder}/.sandbox.json`, JSON.stringify(record));
    renameSync(`${folder}/.sandbox.json`, `${folder}/sandbox.json`);
  }

  async #isWhole(record: SandboxRecord, withNames = true): Promise<boolean> {
    if (record.hostNetwork) return true;
    const { uid } = record.pod;
    const names = this.#paths.podNamespaces(uid);
    if (withNames && !(isNamespace(names.uts) && isNamespace(names.ipc))) return false;
    try {
      return (await this.#kernel.netnsInfo(this.#paths.podNetns(uid))).inode === record.inode;
    } catch {
      return false;
    }
  }

  #runtime(record: SandboxRecord): CniRuntime {
    return new CniRuntime(enterArgs(this.#paths.node(record.node)));
  }

  #sandbox(record: SandboxRecord, nodeIPs: Ip[]): Sandbox {
    const node = this.#paths.node(record.node);
    const names = this.#paths.podNamespaces(record.pod.uid);
    if (record.hostNetwork) {
      return { record, ips: nodeIPs, namespaces: { net: node.netns, uts: node.uts, mnt: node.mnt } };
    }
    return {
      record,
      ips: addressesOf(record.result),
      namespaces: {
        net: this.#paths.podNetns(record.pod.uid),
        uts: names.uts,
        ipc: names.ipc,
        mnt: node.mnt,
      },
    };
  }
}

/** Addresses of a CNI result, IPv4 first. @throws CniError when there is none */
export function addressesOf(result: CniResult | undefined): Ip[] {
  let ips: Ip[];
  try {
    ips = (result?.ips ?? []).map(({ address }) => parseCidr(address).ip);
  } catch (error) {
    throw new CniError(6, `the result of the plugin names a malformed address: ${messageOf(error)}`);
  }
  if (ips.length === 0) throw new CniError(6, 'the result of the plugin names no address');
  return ips.sort((a, b) => Number(a.includes(':')) - Number(b.includes(':')));
}

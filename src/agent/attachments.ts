/**
 * The node's attachments: what a CNI request does, from the address to the answer.
 *
 * ADD: DELs that were kept → address → kernel, and the record durable beside it → answer. DEL: traffic ended → record released, durable →
 * answer. Wherever the agent is killed in between, what the store says is what the next start makes true: records without
 * a sandbox are released, links without a record removed, what is missing made again.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { attachmentId, hostIfnameOf, macOf } from '../attach/names.ts';
import { DEFAULT_ROUTE, GATEWAY, HOST_MAC, planAttachment } from '../attach/plan-attachment.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf, WeftError } from '../base/errors.ts';
import { type Cidr, familyOf, hostCidr, type Ip, parseCidr } from '../base/ip.ts';
import { KeyedMutex } from '../base/keyed-mutex.ts';
import type { Logger } from '../base/log.ts';
import type { CniBackend } from '../cni/backend.ts';
import type { Spool, SpooledDel } from '../cni/spool.ts';
import type { AddRequest, CheckRequest, CniResult, DelRequest, GcRequest } from '../cni/types.ts';
import { attach, closeLinks, detach } from '../datapath/attach/attach.ts';
import { Reaper } from '../datapath/attach/reaper.ts';
import { isSandboxGone, observeHost, repair, verify } from '../datapath/attach/repair.ts';
import { Ipam } from '../ipam/ipam.ts';
import type { Kernel, KernelEvent } from '../kernel/types.ts';
import type { Attachment } from '../state/attachment.ts';
import type { AttachmentStore } from '../state/attachment-store.ts';
import { type Index, MemoryTable } from '../state/memory-table.ts';
import type { ObjectStatus } from '../state/operations.ts';
import type { ReadTable } from '../state/table.ts';
import { AttachmentRepair, type Drift } from './attachment-repair.ts';

export interface AttachmentsOptions {
  kernel: Kernel;
  store: AttachmentStore;
  spool: Spool;
  clock: Clock;
  logger: Logger;
  /** Before a released address may be given again. */
  cooldownSeconds: number;
  /** A file that is there while pods are attached: the plugin answers STATUS by it when there is no agent. */
  marker?: string;
  /** What someone else changed, once it has been put right. */
  onDrift?: (drift: Drift) => void;
}

/** What of the cluster an ADD needs to know. */
export interface PodNetwork {
  /** The node's own pod CIDRs, at most one per family. */
  podCIDRs: Cidr[];
  /** All of the cluster's: what a secondary interface routes. */
  clusterCIDRs: Cidr[];
  /** Bytes. */
  mtu: number;
}

export class Attachments implements CniBackend, AsyncDisposable {
  readonly #o: AttachmentsOptions;
  readonly #kernel: Kernel;
  readonly #table = new MemoryTable<Attachment>('attachments', (a) => a.id);
  readonly #byNetns: Index<Attachment> = this.#table.index((a) => [a.netns]);
  readonly #mutex = new KeyedMutex();
  readonly #reaper: Reaper;
  readonly #repair: AttachmentRepair;
  #network: PodNetwork | undefined;
  #ipam: Ipam | undefined;
  #ownInode = 0;

  constructor(options: AttachmentsOptions) {
    this.#o = options;
    this.#kernel = options.kernel;
    const failed = (error: unknown): void => options.logger.error({ err: error }, 'removing detached links');
    this.#reaper = new Reaper(options.kernel, failed);
    this.#repair = new AttachmentRepair({
      kernel: options.kernel,
      table: this.#table,
      mutex: this.#mutex,
      clock: options.clock,
      logger: options.logger,
      onDrift: options.onDrift ?? (() => {}),
      removeLinks: async (names) => {
        await closeLinks(this.#kernel, names);
        this.#reaper.schedule([]);
      },
    });
  }

  /** What is attached now, by id. */
  get table(): ReadTable<Attachment> {
    return this.#table;
  }

  /** Of each attachment, by id: whether the kernel is known to hold it as planned. */
  get statuses(): ReadTable<ObjectStatus> {
    return this.#repair.statuses;
  }

  /** Those that could not be put right twice in a row. */
  get broken(): ReadTable<ObjectStatus> {
    return this.#repair.broken;
  }

  /**
   * Bring records and kernel together: to be awaited before the first request is let in.
   * @throws WEFT_STORE_*, WEFT_NETLINK_REFUSED
   */
  async start(): Promise<void> {
    const { store, clock, logger } = this.#o;
    this.#ownInode = (await this.#kernel.netnsInfo('/proc/self/ns/net')).inode;
    const bootId = (await this.#kernel.sysctlRead('', 'kernel/random/boot_id')).trim();
    const state = store.load();
    if (state.bootId !== bootId) {
      // No sandbox survives a reboot.
      const ids = state.attachments.map((a) => a.id);
      store.release(ids, clock.now());
      store.setBootId(bootId);
      if (ids.length > 0) logger.info({ released: ids.length }, 'the machine was rebooted');
    } else {
      for (const attachment of state.attachments) this.#table.upsert(attachment);
    }
    await this.#drainSpool();
    const swept = await this.sweep();
    const { changes } = await this.#repair.start();
    // Of addresses that were released just before a crash, nobody knows whether they were purged.
    const released = store.load().released.map((r) => r.ip);
    if (released.length > 0) this.#reaper.schedule(released);
    this.#mark();
    const unowned = changes.filter(({ action }) => action === 'removed').length;
    const repaired = changes.length - unowned;
    logger.info({ attachments: this.#table.size, swept, unowned, repaired }, 'attachments');
  }

  /** Let ADDs in, or change what later ones get. @throws WEFT_BAD_CONFIG, WEFT_BAD_ADDRESS */
  configure(network: PodNetwork): void {
    if (network.podCIDRs.join() !== this.#network?.podCIDRs.join()) {
      const { clock, cooldownSeconds, store } = this.#o;
      const ipam = new Ipam({ podCIDRs: network.podCIDRs, cooldownSeconds, clock });
      ipam.restore(store.load());
      this.#ipam = ipam;
    }
    this.#network = network;
  }

  get ipam(): Ipam | undefined {
    return this.#ipam;
  }

  // --- CNI ---

  async status(): Promise<void> {
    this.#ready();
  }

  async add(request: AddRequest): Promise<CniResult> {
    this.#ready();
    const id = attachmentId(request.containerId, request.ifname);
    const failed = await this.#drainSpool();
    const own = failed.find((f) => attachmentId(f.containerId, f.ifname) === id);
    if (own) throw own.error;
    return await this.#mutex.run(id, () => this.#add(id, request));
  }

  async del(request: DelRequest): Promise<void> {
    await this.#del(request);
  }

  async check(request: CheckRequest): Promise<void> {
    const id = attachmentId(request.containerId, request.ifname);
    await this.#mutex.run(id, async () => {
      const attachment = this.#table.get(id);
      if (attachment?.network !== request.config.name) {
        throw new WeftError(
          'WEFT_ATTACHMENT_UNKNOWN',
          `${id} is not attached to network ${request.config.name}`,
          {
            details: { id },
          },
        );
      }
      const texts = [
        ...resultDifferences(attachment, request),
        ...((await this.#isSameSandbox(attachment))
          ? (await verify(this.#kernel, planAttachment(attachment))).map((d) => d.text)
          : [`${attachment.netns} is not the sandbox that was attached`]),
      ];
      if (texts.length === 0) return;
      throw new WeftError('WEFT_ATTACHMENT_DIFFERS', `${id}: ${texts.join('; ')}`, {
        details: { id, differences: texts },
      });
    });
  }

  async gc(request: GcRequest): Promise<void> {
    const valid = new Set(request.valid.map((ref) => attachmentId(ref.containerId, ref.ifname)));
    await this.#drainSpool();
    for (const { id, containerId, ifname, network } of [...this.#table.values()]) {
      if (network !== request.network || valid.has(id)) continue;
      this.#o.logger.info({ id }, 'garbage-collected');
      await this.#del({ containerId, ifname, network });
    }
    await this.sweep(valid);
  }

  #ready(): { network: PodNetwork; ipam: Ipam } {
    if (!this.#network || !this.#ipam) {
      throw new WeftError('WEFT_CNI_NOT_READY', 'this node has no pod CIDR yet');
    }
    return { network: this.#network, ipam: this.#ipam };
  }

  async #add(id: string, request: AddRequest): Promise<CniResult> {
    const { inode } = await this.#kernel.netnsInfo(request.netns);
    if (inode === this.#ownInode) {
      throw new WeftError('WEFT_CNI_BAD_REQUEST', `${request.netns} is the node's own network namespace`);
    }
    const existing = this.#table.get(id);
    if (existing) {
      const same = existing.netns === request.netns && existing.netnsInode === inode;
      if (same && existing.network !== request.config.name) {
        throw new WeftError('WEFT_ATTACH_CONFLICT', `${id} belongs to network ${existing.network}`);
      }
      if (same && request.ips.every((ip) => existing.ips.includes(hostCidr(ip)))) {
        const plan = planAttachment(existing);
        await repair(this.#kernel, plan, await verify(this.#kernel, plan));
        return resultOf(existing, request);
      }
      await this.#detach([existing]);
    }
    await this.#releaseStale(request, inode);
    const attachment = this.#allocate(id, request, inode);
    await this.#realize(attachment);
    return resultOf(attachment, request);
  }

  /**
   * Into the kernel and onto the disk, side by side: the kernel works in its own thread while the commit waits for the disk.
   * Killed in between, a link without a record is removed at the next start, and its ADD was never answered.
   */
  async #realize(attachment: Attachment): Promise<void> {
    let attaching: Promise<void> | undefined;
    try {
      await this.#reaper.purged(attachment.ips.map(ipOf));
      attaching = attach(this.#kernel, planAttachment(attachment));
      attaching.catch(() => {}); // awaited below; a failed commit comes first
      this.#o.store.put(attachment);
      await attaching;
    } catch (error) {
      await attaching?.catch(() => {});
      await this.#detach([attachment]);
      throw error;
    }
  }

  /** Addresses and the record, in memory: from here on they are taken. */
  #allocate(id: string, request: AddRequest, netnsInode: number): Attachment {
    const { network, ipam } = this.#ready();
    const mtu = request.config.mtu ?? network.mtu;
    const ips = ipam.allocate(id, request.ips);
    try {
      if (mtu < 1280 && ips.some((ip) => familyOf(ip) === 6)) {
        throw new WeftError('WEFT_BAD_CONFIG', `mtu ${mtu} is too small for IPv6 (at least 1280, RFC 8200)`);
      }
      const routes = this.#secondaryRoutes(request, ips, network);
      const attachment: Attachment = {
        id,
        containerId: request.containerId,
        ifname: request.ifname,
        network: request.config.name,
        netns: request.netns,
        netnsInode,
        ips: ips.map(hostCidr),
        mac: request.mac ?? macOf(id),
        hostIfname: hostIfnameOf(id),
        mtu,
        ...(routes && { routes }),
        ...(request.pod && { pod: request.pod }),
        createdAt: new Date(this.#o.clock.now()).toISOString(),
      };
      this.#table.upsert(attachment);
      this.#mark();
      return attachment;
    } catch (error) {
      ipam.release(id, ips);
      throw error;
    }
  }

  /** Where the sandbox has a default route from another interface, only the cluster is routed through this one. */
  #secondaryRoutes(request: AddRequest, ips: Ip[], network: PodNetwork): Cidr[] | undefined {
    const others = [...this.#byNetns.get(request.netns)].flatMap((a) => planAttachment(a).pod.routes);
    const taken = new Set(
      [...(request.config.prevResult?.routes ?? []), ...others].map((route) => route.dst),
    );
    const families = [...new Set(ips.map(familyOf))];
    if (!families.some((family) => taken.has(DEFAULT_ROUTE[family]))) return undefined;
    return families.flatMap((family) =>
      taken.has(DEFAULT_ROUTE[family])
        ? network.clusterCIDRs.filter((cidr) => familyOf(cidr) === family && !taken.has(cidr))
        : [DEFAULT_ROUTE[family]],
    );
  }

  /**
   * The path may have been another sandbox's before, whose DEL never came: its records hold addresses for nothing. An
   * inode number alone proves nothing, for the kernel gives it again; a host side that is gone does.
   */
  async #releaseStale(request: AddRequest, inode: number): Promise<void> {
    const others = [...this.#byNetns.get(request.netns)];
    if (others.length === 0) return;
    const gone = others.filter((a) => a.netnsInode !== inode);
    const suspect = others.filter((a) => a.netnsInode === inode && a.ifname === request.ifname);
    if (suspect.length > 0) {
      const host = await observeHost(this.#kernel);
      gone.push(...suspect.filter((a) => !host.link(a.hostIfname)));
    }
    if (gone.length > 0) await this.#detach(gone);
  }

  async #del({ containerId, ifname, network }: SpooledDel): Promise<void> {
    const id = attachmentId(containerId, ifname);
    await this.#mutex.run(id, async () => {
      const attachment = this.#table.get(id);
      // Of another network: the DEL of an ADD that was refused because the name was taken.
      if (!attachment || (network !== undefined && network !== attachment.network)) return;
      await this.#detach([attachment]);
    });
  }

  // --- the lower half ---

  async #detach(attachments: Attachment[]): Promise<void> {
    await detach(this.#kernel, attachments);
    this.#reaper.schedule(attachments.flatMap((a) => a.ips.map(ipOf)));
    this.#release(attachments);
  }

  #release(attachments: Attachment[]): void {
    const now = this.#o.clock.now();
    this.#o.store.release(
      attachments.map((a) => a.id),
      now,
    );
    for (const { id, ips } of attachments) {
      this.#table.delete(id);
      this.#ipam?.release(id, ips.map(ipOf), now);
    }
    this.#mark();
  }

  async #drainSpool(): Promise<Array<SpooledDel & { error: unknown }>> {
    return await this.#o.spool.drain((request) => this.#del(request));
  }

  async #isSameSandbox({ netns, netnsInode }: Attachment): Promise<boolean> {
    try {
      return (await this.#kernel.netnsInfo(netns)).inode === netnsInode;
    } catch (error) {
      if (isSandboxGone(error)) return false;
      throw error;
    }
  }

  /** Release what has no sandbox any more, except `valid`. Returns how many. */
  async sweep(valid: ReadonlySet<string> = new Set()): Promise<number> {
    let swept = 0;
    for (const { id } of [...this.#table.values()]) {
      if (valid.has(id)) continue;
      await this.#mutex.run(id, async () => {
        const attachment = this.#table.get(id);
        if (!attachment || (await this.#isSameSandbox(attachment))) return;
        this.#o.logger.info({ id, netns: attachment.netns }, 'its sandbox is gone; released');
        await this.#detach([attachment]);
        swept++;
      });
    }
    return swept;
  }

  /** What the kernel reports of the node's namespace; only what others did is looked at. */
  handleKernelEvents(events: readonly KernelEvent[]): void {
    this.#repair.handleKernelEvents(events);
  }

  #marked: boolean | undefined;

  /** The mark is advice for the plugin: no ADD or DEL fails for it. */
  #mark(): void {
    const { marker, logger } = this.#o;
    const wanted = this.#table.size > 0;
    if (marker === undefined || wanted === this.#marked) return;
    try {
      if (wanted) {
        // At start it comes before the socket, which makes the folder.
        mkdirSync(path.dirname(marker), { recursive: true, mode: 0o755 });
        writeFileSync(marker, '');
      } else rmSync(marker, { force: true });
      this.#marked = wanted;
    } catch (error) {
      logger.warn({ marker, error: messageOf(error) }, 'cannot leave the mark of attached pods');
    }
  }

  /** Stop repairing; of what is detached, remove one batch. Pods stay attached. The store and the kernel are the caller's. */
  async close(): Promise<void> {
    await this.#repair.close();
    await this.#reaper.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const ipOf = (cidr: Cidr): Ip => parseCidr(cidr).ip;

/** What ADD answers of an attachment: host side, sandbox side, addresses, routes. */
function resultOf(attachment: Attachment, request: AddRequest): CniResult {
  const { hostIfname, ifname, mac, mtu, netns, ips } = attachment;
  return {
    interfaces: [
      { name: hostIfname, mac: HOST_MAC, mtu },
      { name: ifname, mac, mtu, sandbox: netns },
    ],
    ips: ips.map((address) => ({ address, gateway: GATEWAY[familyOf(address)], interface: 1 })),
    routes: planAttachment(attachment).pod.routes.map(({ dst, via }) => ({ dst, ...(via && { gw: via }) })),
    dns: request.config.dns,
  };
}

/** What the runtime remembers must still be what is attached. */
function resultDifferences(attachment: Attachment, request: CheckRequest): string[] {
  const { prevResult } = request.config;
  const texts: string[] = [];
  const listed = prevResult.interfaces.find((i) => i.name === attachment.ifname && i.sandbox !== undefined);
  if (!listed) texts.push(`prevResult has no interface ${attachment.ifname}`);
  else if (listed.mac !== undefined && listed.mac.toLowerCase() !== attachment.mac) {
    texts.push(`prevResult has MAC ${listed.mac} instead of ${attachment.mac}`);
  }
  for (const cidr of attachment.ips) {
    const { ip } = parseCidr(cidr);
    if (!prevResult.ips.some((entry) => parseCidr(entry.address).ip === ip)) {
      texts.push(`prevResult lacks address ${ip}`);
    }
  }
  return texts;
}

/**
 * A small machine for property tests of crashes: a kernel and a store that survive, and an agent that may die before any op
 * and on either side of any commit.
 *
 * The kernel knows what attaching needs: links that pair across namespaces, routes and neighbours that go with their link,
 * groups, sandboxes that take their interfaces along. Everything is a value; nothing real is touched.
 */
import { WeftError } from '../../base/errors.ts';
import {
  type Address,
  type Link,
  type NetObject,
  type NsPath,
  netObjectKey,
} from '../../base/net-objects.ts';
import type { Kernel, NetnsInfo, Op, OpFailure, RunResult, Step } from '../../kernel/types.ts';
import type { Attachment } from '../../state/attachment.ts';
import type { AttachmentState, AttachmentStore, ReleasedAddress } from '../../state/attachment-store.ts';

export class Killed extends Error {}

/** How long the agent lives: counted in ops and commits. */
export class Life {
  #left = Number.POSITIVE_INFINITY;
  #dead = false;

  /** Die after so many more steps. */
  limit(steps: number): void {
    this.#left = steps;
  }

  kill(): void {
    this.#dead = true;
  }

  get dead(): boolean {
    return this.#dead;
  }

  /** To be called before and after everything that leaves a trace. @throws Killed */
  step(): void {
    if (!this.#dead && this.#left-- <= 0) this.#dead = true;
    if (this.#dead) throw new Killed('killed');
  }
}

interface FakeLink extends Link {
  /** The other end: `ns name`. */
  other: string;
}

export class World {
  bootId = 'boot-0';
  #boots = 0;
  #nextInode = 1;
  readonly sandboxes = new Map<NsPath, number>();
  readonly #links = new Map<string, FakeLink>();
  readonly #objects = new Map<string, NetObject>();
  readonly #purged = new Set<string>();
  readonly #sysctls = new Map<string, string>();

  createSandbox(path: NsPath): void {
    this.sandboxes.set(path, this.#nextInode++);
  }

  removeSandbox(path: NsPath): void {
    this.sandboxes.delete(path);
    for (const [key, link] of [...this.#links]) if (key.startsWith(`${path} `)) this.#removeLink(key, link);
  }

  reboot(): void {
    this.bootId = `boot-${++this.#boots}`;
    this.sandboxes.clear();
    this.#links.clear();
    this.#objects.clear();
  }

  sysctl(ns: NsPath, path: string): string | undefined {
    return path === 'kernel/random/boot_id' ? this.bootId : this.#sysctls.get(`${ns} ${path}`);
  }

  /** What the node's namespace holds. */
  host(): NetObject[] {
    return this.dump('');
  }

  dump(ns: NsPath): NetObject[] {
    const links = [...this.#links].filter(([key]) => key.startsWith(`${ns} `)).map(([, link]) => link);
    const objects = [...this.#objects]
      .filter(([key]) => key.startsWith(`${ns} `))
      .map(([, object]) => object);
    return [...links.map(({ other: _, ...link }) => link), ...objects];
  }

  #removeLink(key: string, link: FakeLink): void {
    this.#links.delete(key);
    this.#removeObjectsOf(key, true);
    const other = this.#links.get(link.other);
    if (other) this.#removeLink(link.other, other);
  }

  /** Routes and neighbours go when a link goes down; addresses only with the link itself. */
  #removeObjectsOf(linkKey: string, addresses: boolean): void {
    const [ns, name] = linkKey.split(' ') as [string, string];
    for (const [key, object] of [...this.#objects]) {
      if (!key.startsWith(`${ns} `) || (object as Address).dev !== name) continue;
      if (addresses || object.kind !== 'address') this.#objects.delete(key);
    }
  }

  /** One op; an errno name when the kernel would refuse it. */
  apply(ns: NsPath, op: Op): string | undefined {
    switch (op.op) {
      case 'link.create': {
        const { peer, ...link } = op.link;
        const [own, far] = [`${ns} ${link.name}`, `${peer!.netns} ${peer!.name}`];
        if (!this.sandboxes.has(peer!.netns!)) return 'ENOENT';
        if (this.#links.has(own) || this.#links.has(far)) return 'EEXIST';
        this.#links.set(own, { ...link, other: far });
        const { netns: _, ...rest } = peer!;
        this.#links.set(far, { kind: 'link', type: 'veth', up: false, ...rest, other: own });
        return undefined;
      }
      case 'link.set': {
        if (op.link.name === 'lo') return undefined;
        const key = `${ns} ${op.link.name}`;
        const link = this.#links.get(key);
        if (!link) return 'ENODEV';
        for (const [field, value] of Object.entries(op.link)) {
          if (value !== undefined) Object.assign(link, { [field]: value });
        }
        if (op.link.up === false) this.#removeObjectsOf(key, false);
        return undefined;
      }
      case 'link.deleteGroup': {
        const members = [...this.#links].filter(
          ([key, l]) => key.startsWith(`${ns} `) && l.group === op.group,
        );
        for (const [key, link] of members) this.#removeLink(key, link);
        return members.length > 0 ? undefined : 'ENODEV';
      }
      case 'address.replace':
        return this.#put(ns, op.address, false);
      case 'route.replace':
        return this.#put(ns, op.route, true);
      case 'neighbour.replace':
        return this.#put(ns, op.neighbour, false);
      case 'conntrack.purge':
        this.#purged.add(op.address);
        return undefined;
      case 'sysctl.write':
        this.#sysctls.set(`${ns} ${op.path}`, `${op.value}`);
        return undefined;
      default:
        throw new Error(`the small machine knows no ${op.op}`);
    }
  }

  #put(ns: NsPath, object: NetObject & { dev?: string }, needsUp: boolean): string | undefined {
    const link = this.#links.get(`${ns} ${object.dev}`);
    if (!link) return 'ENODEV';
    if (needsUp && !link.up) return 'ENETDOWN';
    this.#objects.set(`${ns} ${netObjectKey(object)}`, object);
    return undefined;
  }
}

const ERRNO: Record<string, number> = { ENOENT: 2, EEXIST: 17, ENODEV: 19, ENETDOWN: 100 };

/** The kernel of the world, for as long as the agent lives. Only what attaching uses. */
export function mortalKernel(world: World, life: Life): Kernel {
  const netns = (path: NsPath): NetnsInfo => {
    const inode = path === '/proc/self/ns/net' ? 0 : world.sandboxes.get(path);
    if (inode === undefined) throw new WeftError('WEFT_NETNS_NOT_FOUND', `${path} is gone`);
    return { inode, path };
  };
  const run = async (steps: Step[]): Promise<RunResult> => {
    life.step();
    const failures: OpFailure[] = [];
    for (const [step, { ns, ops, continueOnError }] of steps.entries()) {
      for (const [index, op] of ops.entries()) {
        life.step();
        const errnoName = ns !== '' && !world.sandboxes.has(ns) ? 'ENOENT' : world.apply(ns, op);
        if (!errnoName) continue;
        const gone = op.op === 'link.deleteGroup';
        failures.push({
          step,
          op: index,
          errno: ERRNO[errnoName]!,
          errnoName,
          message: `cannot ${op.op}: ${errnoName}`,
          ...(errnoName === 'ENOENT' && { code: 'WEFT_NETNS_NOT_FOUND' as const }),
          gone,
        });
        if (!gone && !continueOnError) return { failures, stopped: true };
      }
    }
    await new Promise((resolve) => setImmediate(resolve));
    return { failures, stopped: false };
  };
  const kernel: Partial<Kernel> = {
    run,
    must: async (steps) => {
      const failure = (await run(steps)).failures.find((f) => !f.gone);
      if (failure) throw new WeftError(failure.code ?? 'WEFT_NETLINK_REFUSED', failure.message);
    },
    dump: async (ns) => {
      life.step();
      return structuredClone(world.dump(ns));
    },
    netnsInfo: async (path) => {
      life.step();
      return netns(path);
    },
    sysctlRead: async (ns, path) => {
      life.step();
      const value = world.sysctl(ns, path);
      if (value === undefined) throw new WeftError('WEFT_SYSCALL_FAILED', `sysctl ${path}: ENOENT`);
      return value;
    },
  };
  return kernel as Kernel;
}

/** What is on disk. */
export class Disk {
  readonly attachments = new Map<string, Attachment>();
  released: ReleasedAddress[] = [];
  bootId: string | undefined;
}

/** The contract of AttachmentStore, with death on either side of every commit. */
export function mortalStore(disk: Disk, life: Life): AttachmentStore {
  const commit = (work: () => void): void => {
    life.step();
    work();
    life.step();
  };
  const bare = (cidr: string): string => cidr.split('/')[0]!;
  return {
    load(): AttachmentState {
      life.step();
      return {
        attachments: structuredClone([...disk.attachments.values()]),
        released: [...disk.released],
        ...(disk.bootId !== undefined && { bootId: disk.bootId }),
      };
    },
    put: (attachment) =>
      commit(() => {
        disk.attachments.set(attachment.id, structuredClone(attachment));
        const held = new Set(attachment.ips.map(bare));
        disk.released = disk.released.filter(({ ip }) => !held.has(ip));
      }),
    release: (ids, releasedAt) =>
      commit(() => {
        for (const id of ids) {
          const attachment = disk.attachments.get(id);
          disk.attachments.delete(id);
          for (const cidr of attachment?.ips ?? []) disk.released.push({ ip: bare(cidr), releasedAt });
        }
      }),
    setBootId: (bootId) =>
      commit(() => {
        disk.bootId = bootId;
      }),
    close: () => {},
    [Symbol.dispose]: () => {},
  };
}

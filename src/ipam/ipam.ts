/**
 * A node's address allocation: one pool per family, and one call that gives an attachment all it asks for, or nothing.
 */
import type { Clock } from '../base/clock.ts';
import { WeftError } from '../base/errors.ts';
import { type Cidr, familyOf, type Ip, parseCidr } from '../base/ip.ts';
import type { AttachmentState } from '../state/attachment-store.ts';
import { AddressPool, type PoolUsage } from './address-pool.ts';

export interface IpamOptions {
  /** The node's pod CIDRs, at most one per family. */
  podCIDRs: readonly Cidr[];
  /** Before a released address may be given again, unless asked for by name. */
  cooldownSeconds: number;
  clock: Pick<Clock, 'now'>;
}

export class Ipam {
  readonly #pools: AddressPool[];
  readonly #clock: Pick<Clock, 'now'>;

  /** @throws WEFT_BAD_ADDRESS, WEFT_BAD_CONFIG for none or two pools of a family */
  constructor(options: IpamOptions) {
    this.#clock = options.clock;
    this.#pools = options.podCIDRs
      .map((cidr) => new AddressPool(cidr, options.cooldownSeconds * 1000))
      .sort((a, b) => a.family - b.family);
    if (this.#pools.length === 0 || new Set(this.#pools.map((p) => p.family)).size < this.#pools.length) {
      throw new WeftError(
        'WEFT_BAD_CONFIG',
        `a node needs one pod CIDR, or one per family; it has [${options.podCIDRs.join(', ')}]`,
        { details: { podCIDRs: [...options.podCIDRs] } },
      );
    }
  }

  get podCIDRs(): Cidr[] {
    return this.#pools.map((pool) => pool.cidr);
  }

  usage(): PoolUsage[] {
    return this.#pools.map((pool) => pool.usage(this.#clock.now()));
  }

  /** Hold what is on record. Addresses of no pool (the node had other CIDRs once) are left alone: nobody else can get them. */
  restore(state: Pick<AttachmentState, 'attachments' | 'released'>): void {
    for (const { ip, releasedAt } of state.released) this.#poolOf(ip)?.restoreReleased(ip, releasedAt);
    for (const attachment of state.attachments) {
      for (const cidr of attachment.ips) {
        const { ip } = parseCidr(cidr);
        const pool = this.#poolOf(ip);
        if (pool?.isUsable(ip)) pool.claim(ip, attachment.id);
      }
    }
  }

  /**
   * The requested addresses, and one of each family that has a pool and was not requested. IPv4 first. All or none.
   *
   * @throws WEFT_IPAM_EXHAUSTED, WEFT_IPAM_NOT_IN_POOL, WEFT_IPAM_IN_USE
   */
  allocate(owner: string, requested: readonly Ip[] = []): Ip[] {
    const now = this.#clock.now();
    const wanted = [...new Set(requested)].sort((a, b) => familyOf(a) - familyOf(b));
    // Look first, then take: nothing is given back after a refusal, so none loses its place in the order of reuse.
    const claims = wanted.map((ip) => {
      const pool = this.#poolOf(ip);
      if (!pool) {
        throw new WeftError(
          'WEFT_IPAM_NOT_IN_POOL',
          `${ip} is in none of this node's pools (${this.podCIDRs.join(', ')})`,
          { details: { address: ip, pools: this.podCIDRs } },
        );
      }
      pool.mayClaim(ip, owner);
      return { pool, ip };
    });
    const rest = this.#pools.filter((pool) => !wanted.some((ip) => familyOf(ip) === pool.family));
    for (const pool of rest) pool.next(now);

    for (const { pool, ip } of claims) pool.claim(ip, owner);
    const taken = rest.map((pool) => pool.take(owner, now));
    return [...wanted, ...taken].sort((a, b) => familyOf(a) - familyOf(b));
  }

  /** Give addresses back; those that the owner does not hold are left alone. */
  release(owner: string, ips: readonly Ip[], releasedAt = this.#clock.now()): void {
    for (const ip of ips) this.#poolOf(ip)?.release(ip, owner, releasedAt);
  }

  #poolOf(ip: Ip): AddressPool | undefined {
    return this.#pools.find((pool) => pool.contains(ip));
  }
}

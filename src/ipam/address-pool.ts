/**
 * The addresses of one CIDR: who holds which, and in what order they are given.
 *
 * Those never given go first, in ascending order; then the one released longest ago, once it has cooled down. A pod
 * that has gone leaves traces elsewhere (DNS answers, connections, peers' caches), so its address rests as long as it can.
 */
import { WeftError } from '../base/errors.ts';
import {
  bigIntToIp,
  type Cidr,
  cidrContains,
  type Family,
  type Ip,
  ipToBigInt,
  parseCidr,
} from '../base/ip.ts';

/** More than any node has pods; bounds what a pool of 2^64 addresses remembers of the past. */
const MAX_GIVEN = 65_536n;

export interface PoolUsage {
  cidr: Cidr;
  /** How many addresses the pool gives by itself. */
  size: number;
  inUse: number;
  /** Released, and not to be given again yet. */
  coolingDown: number;
}

export class AddressPool {
  readonly cidr: Cidr;
  readonly family: Family;
  /** How many addresses the pool gives by itself: 0 for /32 and /128, whose only address is the node's. */
  readonly size: number;
  readonly #cooldownMs: number;
  readonly #network: bigint;
  /** Offset beyond the last usable address: IPv4's broadcast address, or IPv6's end. */
  readonly #end: bigint;
  readonly #owners = new Map<Ip, string>();
  /** Address → when released. Insertion order is the order of release. */
  readonly #released = new Map<Ip, number>();
  /** The next address that was never given, as an offset from the network address. */
  #fresh = 1n;

  /** @throws WEFT_BAD_ADDRESS */
  constructor(cidr: Cidr, cooldownMs: number) {
    const { family, network, length } = parseCidr(cidr);
    this.cidr = `${network}/${length}`;
    this.family = family;
    this.#network = ipToBigInt(network);
    this.#cooldownMs = cooldownMs;
    const all = 1n << BigInt((family === 4 ? 32 : 128) - length);
    // RFC 3021: a /31 has no broadcast address.
    this.#end = family === 4 && length < 31 ? all - 1n : all;
    this.size = Number(this.#last());
  }

  /** The last offset that is given without being asked for. */
  #last(): bigint {
    const usable = this.#end - 1n;
    return usable < MAX_GIVEN ? usable : MAX_GIVEN;
  }

  /** Whether the address lies in the CIDR at all. */
  contains(ip: Ip): boolean {
    return cidrContains(this.cidr, ip);
  }

  /** Whether a pod may have it: in the CIDR, and neither the network nor the broadcast address. */
  isUsable(ip: Ip): boolean {
    if (!this.contains(ip)) return false;
    const offset = ipToBigInt(ip) - this.#network;
    return offset >= 1n && offset < this.#end;
  }

  ownerOf(ip: Ip): string | undefined {
    return this.#owners.get(ip);
  }

  usage(now: number): PoolUsage {
    let coolingDown = 0;
    for (const at of this.#released.values()) if (!this.#isCool(at, now)) coolingDown++;
    return { cidr: this.cidr, size: this.size, inUse: this.#owners.size, coolingDown };
  }

  /** The address that {@link take} would give. @throws WEFT_IPAM_EXHAUSTED */
  next(now: number): Ip {
    for (const last = this.#last(); this.#fresh <= last; this.#fresh++) {
      const ip = bigIntToIp(this.#network + this.#fresh, this.family);
      if (!this.#owners.has(ip) && !this.#released.has(ip)) return ip;
    }
    const [oldest] = this.#released;
    if (oldest && this.#isCool(oldest[1], now)) return oldest[0];
    const { size, inUse, coolingDown } = this.usage(now);
    throw new WeftError(
      'WEFT_IPAM_EXHAUSTED',
      `pool ${this.cidr} has no free address: ${inUse} of ${size} are in use and ${coolingDown} are cooling down`,
      { details: { pool: this.cidr, size, inUse, coolingDown } },
    );
  }

  /** Give the next free address. @throws WEFT_IPAM_EXHAUSTED */
  take(owner: string, now: number): Ip {
    const ip = this.next(now);
    this.#released.delete(ip);
    this.#owners.set(ip, owner);
    return ip;
  }

  /** A clock that was set back must not freeze addresses for years: a release in the future counts as cool. */
  #isCool(releasedAt: number, now: number): boolean {
    return releasedAt + this.#cooldownMs <= now || releasedAt > now + this.#cooldownMs;
  }

  /** Whether {@link claim} would succeed. @throws WEFT_IPAM_NOT_IN_POOL, WEFT_IPAM_IN_USE */
  mayClaim(ip: Ip, owner: string): void {
    if (!this.isUsable(ip)) {
      throw new WeftError(
        'WEFT_IPAM_NOT_IN_POOL',
        `${ip} is not an address that pool ${this.cidr} can give`,
        {
          details: { address: ip, pool: this.cidr },
        },
      );
    }
    const holder = this.#owners.get(ip);
    if (holder !== undefined && holder !== owner) {
      throw new WeftError('WEFT_IPAM_IN_USE', `${ip} is held by ${holder}`, {
        details: { address: ip, holder },
      });
    }
  }

  /** Give one particular address, cooling down or not. @throws WEFT_IPAM_NOT_IN_POOL, WEFT_IPAM_IN_USE */
  claim(ip: Ip, owner: string): void {
    this.mayClaim(ip, owner);
    this.#released.delete(ip);
    this.#owners.set(ip, owner);
  }

  /** Give an address back; false when that owner does not hold it. */
  release(ip: Ip, owner: string, releasedAt: number): boolean {
    if (this.#owners.get(ip) !== owner) return false;
    this.#owners.delete(ip);
    this.restoreReleased(ip, releasedAt);
    return true;
  }

  /** Take note of a release that is on record. To be called oldest first. */
  restoreReleased(ip: Ip, releasedAt: number): void {
    if (!this.isUsable(ip) || this.#owners.has(ip)) return;
    this.#released.delete(ip);
    this.#released.set(ip, releasedAt);
  }
}

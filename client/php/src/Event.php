<?php

declare(strict_types=1);

namespace Longline;

/**
 * A CloudEvents 1.0 event as the gateway sends it. `data` is the publisher's
 * JSON, objects as arrays; `attributes` is all of it, extensions too. Integers
 * beyond PHP's become floats.
 */
final class Event
{
    public readonly string $id;
    public readonly string $source;
    public readonly string $type;
    public readonly string $subject;
    public readonly string $partitionkey;
    public readonly string $channel;
    public readonly string $cursor;
    public readonly mixed $data;
    /** @var array<string, mixed> */
    public readonly array $attributes;

    private function __construct(array $attributes)
    {
        $this->attributes = $attributes;
        foreach (['id', 'source', 'type', 'subject', 'partitionkey', 'channel', 'cursor'] as $name) {
            $this->$name = (string) ($attributes[$name] ?? '');
        }
        $this->data = $attributes['data'] ?? null;
    }

    /** Makes an event of its decoded JSON. */
    public static function of(mixed $value): self
    {
        if (!is_array($value) || ($value['specversion'] ?? null) !== '1.0') {
            throw new LonglineException('protocol', 'no event: specversion is not 1.0');
        }
        foreach (['id', 'source', 'type'] as $name) {
            if (!is_string($value[$name] ?? null) || $value[$name] === '') {
                throw new LonglineException('protocol', "no event: it lacks $name");
            }
        }
        return new self($value);
    }

    /** Reads an event's JSON. */
    public static function parse(string $text): self
    {
        return self::of(Json::decode($text));
    }

    /** When it happened; null where it doesn't say. */
    public function time(): ?\DateTimeImmutable
    {
        return isset($this->attributes['time']) ? new \DateTimeImmutable((string) $this->attributes['time']) : null;
    }

    /** The bytes, where the publisher published some; else null. */
    public function binary(): ?string
    {
        return isset($this->attributes['data_base64']) ? (base64_decode((string) $this->attributes['data_base64'], true) ?: '') : null;
    }
}

<?php

declare(strict_types=1);

namespace Longline;

/** Cursors, `<channel>@<epoch>-<offset>`, of several channels. */
final class Position
{
    /**
     * Reads a position, whose cursors are joined by commas.
     *
     * @return array<string, array{channel: string, epoch: string, offset: int}> by channel
     */
    public static function parse(string $text): array
    {
        $position = [];
        foreach ($text === '' ? [] : explode(',', $text) as $one) {
            if (!preg_match('/^((?:[A-Za-z0-9_:-]+\.)*[A-Za-z0-9_:-]+)@([a-z0-9]+)-(0|[1-9][0-9]*)$/D', $one, $m) || strlen($m[1]) > 128 || !is_int($m[3] + 0)) {
                throw new LonglineException('protocol', 'no cursor: ' . substr($one, 0, 80));
            }
            $position[$m[1]] = ['channel' => $m[1], 'epoch' => $m[2], 'offset' => (int) $m[3]];
        }
        return $position;
    }

    /** Whether a cursor is of the same log as the position's and not behind it. */
    public static function covers(array $position, string $cursor): bool
    {
        $at = array_values(self::parse($cursor))[0] ?? null;
        $until = $position[$at['channel'] ?? ''] ?? null;
        return $until !== null && $until['epoch'] === $at['epoch'] && $at['offset'] <= $until['offset'];
    }
}

<?php

/**
 * Plugin Name: Longline notes
 * Description: Takes events of a Longline gateway at /wp-json/longline/v1/callback and keeps them as private posts.
 * Version: 0.1.0
 * Requires PHP: 8.1
 */
declare(strict_types=1);

defined('ABSPATH') || exit;

// In a plugin that is installed, a copy of client/php stands beside this file.
require is_dir(__DIR__ . '/longline') ? __DIR__ . '/longline/autoload.php' : __DIR__ . '/../../client/php/autoload.php';

add_action('rest_api_init', static function (): void {
    Longline\Adapters\WordPress::route('longline/v1', '/callback', static fn () => get_option('longline_secret'), 'longline_note');
});

function longline_note(Longline\Event $event, Longline\Delivery $delivery): void
{
    // The event's id as the post's name: an event that comes twice is kept once.
    $name = 'longline-' . substr(md5("$event->source $event->id"), 0, 20);
    if (get_page_by_path($name, OBJECT, 'post')) {
        return;
    }
    $kept = wp_insert_post([
        'post_name' => $name, 'post_title' => "$event->type: $event->subject", 'post_status' => 'private',
        'post_content' => (string) wp_json_encode($event->data),
    ], true);
    if (is_wp_error($kept)) {
        throw new RuntimeException($kept->get_error_message()); // the gateway tries again
    }
}
